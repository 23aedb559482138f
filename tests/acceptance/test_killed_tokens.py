"""A tokens job that is killed three times ends with the shards of one that never was."""

import json
import os
import signal
import subprocess
import time

import pytest
from conftest import Workflow
from peers import demo_documents
from texts import SYSTEM_PROMPT, lay_out_chat_lm, lay_out_texts

pytestmark = pytest.mark.acceptance
TARGET = "results/demo/tokens/train/manifest.json"
# Seconds after the job has begun to write. Tokenising takes about two.
DELAYS_S = (0.0, 0.3, 0.8)


def laid_out(folder, inputs):
    texts = {
        "base": {"folder": str(inputs / "plain"), "layout": "joined"},
        "chats": {
            "folder": str(inputs / "chat"),
            "column": "messages",
            "chat": {"system_prompt": SYSTEM_PROMPT},
        },
        "both": {"mix": {"base": 9, "chats": 1}},
    }
    demo = {"folder": str(inputs / "lm"), "text": "both", "train_tokens": 1_500_000}
    workflow = Workflow(folder)
    workflow.configure({"texts": texts, "models": {"demo": demo}})
    return workflow


def shards(workflow):
    manifest = json.loads(workflow.read(TARGET))
    return [(shard["file"], shard["sha256"]) for shard in manifest["shards"]], manifest["parts"]


def test_shards_are_the_same_after_three_kills(tmp_path):
    lay_out_chat_lm(tmp_path / "lm")
    lay_out_texts(tmp_path, demo_documents("train", 15_000))
    straight, killed = (tmp_path / name for name in ("straight", "killed"))
    for folder in (straight, killed):
        folder.mkdir()
    straight, killed = laid_out(straight, tmp_path), laid_out(killed, tmp_path)
    straight.succeed(TARGET)

    store = killed.folder / "results" / ".store" / "tokens"
    for delay in DELAYS_S:
        left_over = set(store.glob(".*"))
        running = subprocess.Popen(
            killed.command(TARGET),
            cwd=killed.folder,
            env=killed.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while not set(store.glob(".*")) - left_over:
            assert running.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        time.sleep(delay)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        # Nothing is there that a later job could take for whole.
        assert not [path for path in store.iterdir() if path.name[0] != "."]
        assert not (killed.folder / TARGET).exists()
    killed.succeed(TARGET)
    assert shards(killed) == shards(straight)
