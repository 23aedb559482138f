"""SAEs of the demo on a mixture of joined text and chats; `saemake text` before and after; texts on
a Hub that are .txt files, or a script."""

import json

import pytest
import yaml
from conftest import Workflow
from hub_server import LocalHub
from peers import demo_documents
from texts import SYSTEM_PROMPT, lay_out_chat_lm, lay_out_texts

from saemake.__main__ import main
from saemake.text.shards import Tokens

JUDGED = "results/demo/L3/top_k/256/k_4/dictionary_learning.json"
TRAINED_ON = "results/demo/tokens/train/manifest.json"
JUDGED_ON = "results/demo/tokens/dictionary_learning/manifest.json"


@pytest.fixture
def mixed(fresh: Workflow) -> Workflow:
    lay_out_chat_lm(fresh.folder / "lm")
    lay_out_texts(fresh.folder, demo_documents("train", 600))
    chat = {"system_prompt": SYSTEM_PROMPT}
    texts = {
        # Written down in the order of the alphabet, which is that of a round.
        "base": {"folder": str(fresh.folder / "plain"), "layout": "joined"},
        "chats": {"folder": str(fresh.folder / "chat"), "column": "messages", "chat": chat},
        "both": {"mix": {"base": 9, "chats": 1}},
    }
    models = {"demo": {"folder": str(fresh.folder / "lm"), "text": "both"}}
    fresh.configure({"texts": texts, "models": models})
    return fresh


@pytest.fixture
def text(mixed, monkeypatch, capsys):
    """What `saemake text` says, with those words, in the workflow's folder."""

    def say(*words):
        monkeypatch.chdir(mixed.folder)
        assert main(["text", *words, "--configfile", mixed.config_file]) == 0
        return capsys.readouterr().out

    return say


def test_saes_train_and_are_judged_on_a_mixture_with_chats(mixed, text):
    look = json.loads(text("both", "--json"))
    assert look["built"] is None
    assert not (mixed.folder / "results").exists()

    mixed.succeed(JUDGED)
    trained, judged = (Tokens(mixed.folder / path) for path in (TRAINED_ON, JUDGED_ON))
    plain, chats = trained.manifest["parts"]
    # Whole rounds, and the beginning of one.
    assert 9 * chats["documents"] <= plain["documents"] <= 9 * chats["documents"] + 9
    assert plain["rows_read"] > plain["documents"]
    assert chats["rows_read"] == chats["documents"]
    assert trained.manifest["documents"] == plain["documents"] + chats["documents"]
    # Nothing is judged on that was trained on: each part goes on after its own rows.
    assert judged.manifest["documents"] == 10
    for before_part, part in zip((plain, chats), judged.manifest["parts"], strict=True):
        assert part["rows_read"] > before_part["rows_read"]
    seen = {ids.tobytes() for ids in trained.documents()}
    assert not seen & {ids.tobytes() for ids in judged.documents()}
    assert json.loads(mixed.read(JUDGED))

    # What was foretold is what was built.
    after = json.loads(text("both", "--json"))
    assert after["built"] == "results/demo/tokens/train"
    assert after["lengths"] == look["lengths"][: len(after["lengths"])]
    assert after["samples"] == look["samples"]
    foretold = [part["rows_needed"] for part in look["parts"]]
    for rows, part in zip(foretold, trained.manifest["parts"], strict=True):
        assert rows == pytest.approx(part["rows_read"], rel=0.1)

    shown = text("demo", "--use", "dictionary_learning")
    assert len(shown.splitlines()) < 45
    assert max(map(len, shown.splitlines())) <= 100
    assert "to be judged by dictionary_learning: built" in shown
    assert "<|im_start|>user\\n" in shown


def test_a_mixture_that_runs_out_of_one_part(mixed):
    over = yaml.safe_load((mixed.folder / mixed.config_file).read_text())
    over["models"]["demo"]["train_tokens"] = 400_000
    over["texts"]["both"]["mix"] = {"base": 1, "chats": 5}
    mixed.write(over)
    said = mixed.fail(TRAINED_ON)
    assert "when its part 'chats' ran out, fewer than the 400,896 tokens that" in said
    assert "or lower the part's number in texts.both.mix" in said
    assert not list((mixed.folder / "results" / ".store" / "tokens").glob("*"))


def test_txt_files_and_a_script_on_a_hub(fresh):
    with LocalHub() as hub:
        stories = "<|endoftext|>\n".join(f"{text}\n" for text in demo_documents("train", 300))
        hub.commit("dataset", "somebody/stories", {"stories.txt": stories.encode()})
        hub.commit("dataset", "somebody/scripted", {"scripted.py": b"raise SystemExit"})
        texts = {
            "stories": {"hub": "somebody/stories", "separator": "<|endoftext|>"},
            "scripted": {"hub": "somebody/scripted"},
        }
        environment = hub.environment(fresh.folder / "hf")
        fresh.configure({"texts": texts, "models": {"demo": {"text": "stories"}}})
        fresh.succeed(TRAINED_ON, **environment)
        manifest = json.loads(fresh.read(TRAINED_ON))
        assert manifest["rows_read"] == manifest["documents"] < 300
        assert manifest["text_revision"] == hub.commits("dataset", "somebody/stories")[0]
        fresh.configure({"texts": texts, "models": {"demo": {"text": "scripted"}}})
        said = fresh.fail(TRAINED_ON, **environment)
        assert "text somebody/scripted: is read by a script, which saemake does not run" in said
