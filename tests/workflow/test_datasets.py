"""Data that SAE Bench reads: fetched by a job of its own from a Hub on this machine, pinned,
checked, and there without a network afterwards."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT, Workflow, raw_config
from hub_server import LocalHub

from saemake.base.store import Store
from saemake.config.checks import read
from saemake.inputs import datasets

BIOS, LINES = "somebody/bios", "somebody/lines"
WHOLE = {
    "README.md": b"---\n---\n",
    "data/train.jsonl": b'{"hard_text": "a", "profession": 0, "gender": 1}\n',
    "data/run.py": b"raise SystemExit",
    "more/other.jsonl": b"{}\n",
}


@pytest.fixture
def hub():
    with LocalHub() as local:
        local.commit("dataset", BIOS, WHOLE)
        rows = [json.dumps({"text": f"line {n}"}) for n in range(50)]
        local.commit("dataset", LINES, {"train.jsonl": "\n".join(rows).encode()})
        yield local


def configure(workflow: Workflow) -> None:
    workflow.configure(
        {
            "datasets": {
                "LabHC/bias_in_bios": {"hub": BIOS, "files": ["README.md", "data/*"]},
                "monology/pile-uncopyrighted": {"hub": LINES, "split": "train", "rows": 20},
            }
        }
    )


def environment(hub: LocalHub, workflow: Workflow) -> dict[str, str]:
    return hub.environment(workflow.folder / "hf")


def test_a_dataset_is_fetched_once_pinned_and_checked(
    fresh: Workflow, hub: LocalHub, monkeypatch, tmp_path: Path
) -> None:
    configure(fresh)
    target = "datasets/LabHC/bias_in_bios.json"
    fresh.succeed(target, **environment(hub, fresh))
    described = json.loads(fresh.read(target))
    # No program is laid out, and nothing that the config does not ask for.
    assert set(described["files"]) == {"README.md", "data/train.jsonl"}
    before = described["revision"]
    hub.commit("dataset", BIOS, {**WHOLE, "data/train.jsonl": b'{"hard_text": "b"}\n'})
    (fresh.folder / target).unlink()
    fresh.succeed(target, **environment(hub, fresh))
    assert json.loads(fresh.read(target))["revision"] == before

    # Without a network the very files are there; a changed one is told.
    over = yaml.safe_load((fresh.folder / fresh.config_file).read_text())
    monkeypatch.chdir(fresh.folder)
    for name, value in environment(hub, fresh).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(fresh.folder / "hf" / "hub"))
    config = read(raw_config(over), PROJECT, [])
    store = Store(fresh.folder / "results/.store", "datasets")
    laid_out = tmp_path / "laid_out"
    laid_out.mkdir()
    datasets.lay_out(config, described, laid_out, store)
    assert (laid_out / "data/train.jsonl").read_bytes() == WHOLE["data/train.jsonl"]


def test_the_first_rows_of_a_large_dataset_are_kept(fresh: Workflow, hub: LocalHub) -> None:
    configure(fresh)
    target = "datasets/monology/pile-uncopyrighted.json"
    fresh.succeed(target, **environment(hub, fresh))
    (file,) = json.loads(fresh.read(target))["files"]
    (kept,) = (fresh.folder / "results/.store/datasets").glob(f"*/{file}")
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert rows == [{"text": f"line {n}"} for n in range(20)]


def test_what_cannot_be_fetched_is_told_in_one_line(fresh: Workflow, hub: LocalHub) -> None:
    target = "datasets/LabHC/bias_in_bios.json"
    fresh.configure({"datasets": {"LabHC/bias_in_bios": {"hub": BIOS, "files": ["none/*"]}}})
    said = fresh.fail(target, **environment(hub, fresh))
    assert "'datasets.LabHC/bias_in_bios.files': somebody/bios has no file like none/*" in said
    configure(fresh)
    hub.gate("dataset", BIOS)
    said = fresh.fail(target, **environment(hub, fresh))
    assert f"dataset '{BIOS}' is gated: accept its terms on its Hub page" in said
    assert f"/datasets/{BIOS})" in said
