"""The messages that docs/troubleshooting.md quotes are those that a user sees."""

import errno
import fcntl
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CONFIG_FILE, DEMO_LM, PROJECT, raw_config
from hub_server import LocalHub
from unit.test_screen import job_fails, shown  # noqa: F401

from saemake.base import devices, gpus
from saemake.base.errors import SaemakeError
from saemake.base.store import Store, disk_fault
from saemake.commands import command_line, why
from saemake.config.checks import read
from saemake.inputs import weights
from saemake.jobs import train, turns
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.command_words import check_target
from saemake.paths.names import STORE, SaeName, Sweep
from saemake.plan import messages
from saemake.recipes.training import sae_recipe
from saemake.training.members import Stores, Wanted

TEXT = (PROJECT / "docs" / "troubleshooting.md").read_text()
# The command and the first line of what it says, by the heading above them.
CASES = {
    heading: (shlex.split(command), said.strip())
    for heading, command, said in re.findall(
        r"^### (.+)\n\n {4}\$ (.+)\n {4}(.+)$", TEXT, flags=re.MULTILINE
    )
}
# Compared by nothing here: what the shell says.
SHELL = {"A command is not found"}
SOMEWHERE = "/somewhere/saemake"


def quotes(heading: str, said: str) -> bool:
    """Whether the page has this message; `...` stands for anything."""
    parts = CASES[heading][1].removeprefix("saemake: ").split("...")
    return re.fullmatch(".*".join(map(re.escape, parts)), said) is not None


def refusal(call, *arguments) -> str:
    with pytest.raises(SaemakeError) as refused:
        call(*arguments)
    return str(refused.value)


TARGETS = {
    "A misspelt target",
    "A folder instead of a file",
    "A second spelling of a sparsity",
    "An absolute path",
}


@pytest.mark.parametrize("heading", sorted(TARGETS))
def test_targets(heading, config):
    assert quotes(heading, refusal(check_target, config, CASES[heading][0][1]))


@pytest.mark.parametrize("heading", ["An option before the target", "A tab in a YAML file"])
def test_the_command_line(heading, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tab.yaml").write_text("models:\n\tmine: 3\n")
    assert quotes(heading, refusal(command_line.check, CASES[heading][0][1:]))


def test_the_config(tmp_path, monkeypatch):
    key, value = CASES["A misspelt key"][0][2].split("=")
    said = refusal(read, raw_config({key: yaml.safe_load(value)}), PROJECT, [CONFIG_FILE])
    assert quotes("A misspelt key", said)
    monkeypatch.chdir(tmp_path)
    mine = {"models": {"mine": {"folder": "models/mine"}}}
    Path("mine.yaml").write_text(yaml.safe_dump(mine))
    said = refusal(read, raw_config(mine), PROJECT, [CONFIG_FILE, Path("mine.yaml")])
    assert quotes("A model without its sizes", said.replace(str(PROJECT), SOMEWHERE))


def test_the_network(tmp_path, config):
    files = {path.name: path.read_bytes() for path in DEMO_LM.iterdir()}
    store = Store(tmp_path, "revisions")
    with LocalHub() as hub, hub.inside(tmp_path / "gated"):
        hub.commit("model", "google/gemma-2-2b", files)
        hub.gate("model", "google/gemma-2-2b")
        said = refusal(weights.fetch, config, "gemma-2-2b", store)
        assert quotes("A gated model", said.replace(hub.endpoint, "https://huggingface.co"))
    with LocalHub() as hub, hub.inside(tmp_path / "away"):
        hub.stop()
        assert quotes("No network", refusal(weights.fetch, config, "pythia-70m-deduped", store))


def test_memory_and_disk(tmp_path, monkeypatch, config, shown):  # noqa: F811
    full = OSError(errno.ENOSPC, "No space left on device")
    assert quotes("A full disk", str(disk_fault(full, STORE / "saes" / "0a1b")))

    sae = SaeName(Sweep("gemma-2-2b", Hookpoint(12), "top_k", "65k"), 20)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (12 * 2**30, 16 * 2**30))
    wanted, label = [Wanted(str(sae), sae_recipe(config, sae))], f"train {sae.sweep}"
    said = refusal(train._parts, config, sae.model, label, wanted, Stores.under(tmp_path))
    assert quotes("Too little memory on the GPU", said)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "0000:01:00.0").mkdir()
    monkeypatch.setattr(gpus, "DRIVERS_GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if torch.version.cuda is None:
        assert quotes("A GPU that is not used", devices.unused_gpu())

    logger, lines = shown
    job_fails(logger, how="died with <Signals.SIGKILL: 9>.")
    assert quotes("A job is killed", lines[0].removeprefix("saemake: "))


def test_results(tmp_path, monkeypatch, capsys, config):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "lock").open("w") as held, (tmp_path / "lock").open("r+") as waiting:
        fcntl.flock(held, fcntl.LOCK_EX)
        print(30070, file=held, flush=True)
        thread = threading.Thread(target=turns._lock, args=(waiting, "demo"))
        thread.start()
        thread.join(0.2)
        fcntl.flock(held, fcntl.LOCK_UN)
        thread.join()
    said = capsys.readouterr().err.strip()
    assert quotes("Two runs at once", said.removeprefix("saemake: "))

    file = Path(CASES["A file was edited"][0][-1])
    file.parent.mkdir(parents=True)
    file.write_bytes(b"edited")
    (file.parent / "provenance.json").write_text('{"ae_sha256": "' + 64 * "0" + '"}')
    assert quotes("A file was edited", next(why._damage(config, str(file), None)))

    said = str(messages.of_training(config, Sweep("demo", Hookpoint(3), "top_k", "1k")))
    assert quotes("Results that were copied train again", f"Job 2: {said}")


def test_outside_of_the_project(tmp_path):
    command, _ = CASES["No Snakefile"]
    done = subprocess.run(
        [Path(sys.executable).with_name(command[0]), *command[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert quotes("No Snakefile", done.stderr.strip().splitlines()[-1])
    command, _ = CASES["No Python"]
    done = subprocess.run(
        [*command, "PYTHON=false", f"VENV={tmp_path}/venv"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert quotes("No Python", done.stderr.splitlines()[0])


def test_every_case_is_tried():
    text = Path(__file__).read_text()
    assert len(CASES) == TEXT.count("\n### ")
    assert not [heading for heading in set(CASES) - SHELL if f'"{heading}"' not in text]
