"""SAEs by name that no sweep of the config lists: another sparsity, width or seed."""

import hashlib
import json
import subprocess
import sys

import pytest
from conftest import Workflow, copied

pytestmark = pytest.mark.acceptance

FOLDER = "results/demo/L3/top_k/256"
NAMES = ("k_7", "k_4/seed_3", "k_7/seed_3")
CHECKPOINTS = {"models": {"demo": {"architectures": {"top_k": {"checkpoints": [0.0, 0.5]}}}}}


@pytest.fixture(scope="module")
def built(begun, tmp_path_factory) -> Workflow:
    """Three SAEs that no sweep lists, and one of another width."""
    workflow = copied(begun, tmp_path_factory.mktemp("outside"))
    targets = [f"{FOLDER}/{name}/metrics.json" for name in NAMES]
    workflow.succeed(*targets, "results/demo/L3/top_k/300/k_7/ae.pt")
    return workflow


def saemake(built: Workflow, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "saemake", *arguments, "--configfile", built.config_file],
        cwd=built.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def provenance(built: Workflow, name: str) -> dict:
    return json.loads(built.read(f"{FOLDER}/{name}/provenance.json"))


def test_rows_say_which_sae_they_are_of(built):
    for name in NAMES:
        rows = json.loads(built.read(f"{FOLDER}/{name}/metrics.json"))
        sparsity, _, seed = name.partition("/seed_")
        for row in rows:
            assert row["name"] == f"demo/L3/top_k/256/{name}"
            assert row["sparsity"] == sparsity
            assert row.get("seed") == (int(seed) if seed else None)
            assert ("seed" in row) == bool(seed)
            assert {"dictionary_learning", "sae_bench_core"} <= set(row)


def test_a_seed_gives_another_sae_with_that_seed(built):
    assert provenance(built, "k_7/seed_3")["recipe"]["training"]["seed"] == 3
    assert provenance(built, "k_7")["recipe"]["training"]["seed"] == 0
    sums = {hashlib.sha256(built.read(f"{FOLDER}/{name}/ae.pt")).hexdigest() for name in NAMES}
    assert len(sums) == 3


def test_a_sweep_that_lists_it_takes_it_from_the_store(built, tmp_path):
    """The same recipe, and so the same bytes: only the other SAE of the sweep is trained."""
    copy = copied(built, tmp_path)
    copy.configure({"models": {"demo": {"architectures": {"top_k": {"sweep": [4, 7]}}}}})
    said = copy.succeed(f"{FOLDER}/k_4/ae.pt")
    assert "train 1 SAE demo/L3/top_k/256 (k_4), link 1 (k_7) from the store" in said
    assert copy.read(f"{FOLDER}/k_7/ae.pt") == built.read(f"{FOLDER}/k_7/ae.pt")


def test_commands_know_them(built):
    for name in NAMES:
        assert saemake(built, "why", f"{FOLDER}/{name}") == f"{FOLDER}/{name}: current\n"
    said = saemake(built, "verify", f"{FOLDER}/k_7/seed_3/ae.pt")
    assert "demo/L3/top_k/256/k_7/seed_3: identical" in said
    # Their paths name them, so pruning keeps them.
    listed = saemake(built, "store")
    assert "not named by this config" not in listed
    planned = json.loads(saemake(built, "plan", f"{FOLDER}/k_9/metrics.json", "--json"))
    assert planned["saes_to_train"] == ["demo/L3/top_k/256/k_9"]
    assert planned["jobs"][0]["job"] == "demo/L3/top_k/256/k_9"


def test_an_export_of_one(built, tmp_path):
    copy = copied(built, tmp_path)
    copy.succeed("saelens/demo/L3/top_k/256/k_7/seed_3/cfg.json")
    assert (copy.folder / "saelens/demo/L3/top_k/256/k_7/seed_3/sae_weights.safetensors").is_file()


def test_checkpoints_of_one(built, tmp_path):
    copy = copied(built, tmp_path)
    copy.configure(CHECKPOINTS)
    copy.succeed(f"{FOLDER}/k_7/seed_3/checkpoints/metrics.json")
    rows = json.loads(copy.read(f"{FOLDER}/k_7/seed_3/checkpoints/metrics.json"))
    assert {row["steps"] for row in rows} == {0, 20}
    assert {row["seed"] for row in rows} == {3}
    assert copy.read(f"{FOLDER}/k_7/seed_3/ae.pt") == built.read(f"{FOLDER}/k_7/seed_3/ae.pt")


def test_nothing_is_left_to_do(built):
    targets = [f"{FOLDER}/{name}/metrics.json" for name in NAMES]
    assert "Nothing to be done" in built.succeed(*targets)
