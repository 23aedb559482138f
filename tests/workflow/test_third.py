"""An evaluation of one's own, added as docs/adding-an-evaluation.md says: one folder and one config
entry, in a copy of the project. Its job runs, and tables, schema, plans and targets have it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import PROJECT, SMALL, merged

from saemake.evaluation.description import Evaluation, TextEvaluation

pytestmark = pytest.mark.acceptance

THIRD = "loss_by_position"
COPIED = ("saemake", "config", "workflow", "profiles", "snakemake_logger_plugin_saemake")
ENTRY = {"contexts": 8, "context_tokens": 32, "first": 4, "held_out": True}
SWEEP = "results/demo/L3/top_k/256"


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, folder / name, ignore=ignored)
    shutil.copy(PROJECT / "Snakefile", folder)
    for name in ("resources", "envs", "docs"):
        (folder / name).symlink_to(PROJECT / name)
    source = PROJECT / "tests" / "third" / THIRD
    shutil.copytree(source, folder / "saemake" / "evaluation" / THIRD)
    over = merged({"evaluations": {THIRD: ENTRY}}, SMALL)
    (folder / "small.yaml").write_text(yaml.safe_dump(over))
    return folder


def run(copy: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--configfile", "small.yaml"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def snakemake(copy: Path, *targets: str) -> str:
    return run(copy, "snakemake", *targets, "--cores", "1")


def test_a_new_evaluation_goes_through_the_workflow(copy: Path) -> None:
    planned = json.loads(run(copy, "saemake", "plan", f"{SWEEP}/k_4/{THIRD}.json", "--json"))
    assert [job["stage"] for job in planned["jobs"]] == ["training", "evaluation"]
    assert planned["tokens_to_tokenise"][f"demo {THIRD}"] == 8 * 32
    snakemake(copy, f"{SWEEP}/metrics.json")
    rows = json.loads((copy / SWEEP / "metrics.json").read_text())
    assert len(rows) == 2 * 2 + len({row["name"] for row in rows if row["width"] is None})
    for row in rows:
        assert set(row[THIRD]) == {"loss_first", "loss_later"}
        assert row["evaluations"][THIRD]["context_tokens"] == 32
        assert row["dictionary_learning"]["loss_original"] > 0
    exact = next(row for row in rows if row["architecture"] == "identity")
    assert exact[THIRD]["loss_later"] < exact[THIRD]["loss_first"]
    latents = pd.read_parquet(copy / SWEEP / "k_4" / f"{THIRD}_latents.parquet")
    assert len(latents) == 2 * 256
    assert latents["density"].sum() == pytest.approx(2 * 4, rel=0.2)
    assert f"{SWEEP}/metrics.json: current" in run(copy, "saemake", "why", f"{SWEEP}/metrics.json")


def test_its_settings_make_its_own_files_stale_alone(copy: Path) -> None:
    snakemake(copy, f"{SWEEP}/metrics.json")
    entry = {**ENTRY, "first": 8}
    over = merged({"evaluations": {THIRD: entry}}, SMALL)
    (copy / "small.yaml").write_text(yaml.safe_dump(over))
    said = run(copy, "snakemake", f"{SWEEP}/metrics.json", "--cores", "1", "-n")
    jobs = set(re.findall(r"^(\w+) +\d+$", said, flags=re.MULTILINE)) - {"total"}
    assert jobs == {
        "evaluate__demo__top_k",
        "evaluate_baselines",
        "join__demo__top_k",
        "join_baselines",
        "metrics",
    }
    assert f"evaluate demo/L3/top_k/256 by {THIRD}" in said
    assert "by sae_bench_core" not in said


def test_the_guide_names_every_attribute() -> None:
    text = (PROJECT / "docs" / "adding-an-evaluation.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    for described in (Evaluation, TextEvaluation):
        public = {name for name in vars(described) if not name.startswith("_")}
        assert set(described.__annotations__) | public <= named
