"""The workflow on the demo's LM and text, cut small: real rules, files and exit codes."""

import hashlib
import json
import shutil

import pytest
import torch

SWEEP = "results/demo/L3/top_k/256"
TABLE = f"{SWEEP}/metrics.json"
LOG = "demo/L3/top_k/256.log"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_all_builds_the_figures_and_a_second_run_does_nothing(workflow):
    first = workflow.succeed()
    figures = workflow.folder / "results/demo/L3/figures"
    assert sorted(path.name for path in figures.iterdir()) == [
        "loss_recovered_vs_l0.pdf",
        "loss_recovered_vs_l0.svg",
        "variance_explained_vs_l0.pdf",
        "variance_explained_vs_l0.svg",
    ]
    assert (figures / "loss_recovered_vs_l0.pdf").read_bytes().startswith(b"%PDF")
    assert "train demo/L3/top_k/256 (2 SAEs): 100%" in first  # progress is seen
    assert "Nothing to be done" in workflow.succeed()


def test_from_a_path_to_metrics_and_back_from_the_store(workflow):
    workflow.succeed(TABLE)
    rows = json.loads(workflow.read(TABLE))
    assert [row["sparsity"] for row in rows] == ["k_4", "k_16"]
    assert [row["l0"] for row in rows] == [4.0, 16.0]
    for row in rows:
        assert row["ce_clean"] < row["ce_sae"] < row["ce_ablated"]
        assert 0 < row["loss_recovered"] < 1
    assert "training 2" in workflow.trained(LOG)
    before = {name: workflow.read(f"{SWEEP}/{name}") for name in ("k_4/ae.pt", "metrics.json")}

    # One sparsity more trains one SAE, and leaves the others as they were.
    more = {"sweep": [4, 8, 16], "threshold_start_step": 10}
    workflow.configure({"models": {"demo": {"architectures": {"top_k": more}}}})
    workflow.succeed(TABLE)
    assert "2 of 3 SAEs are in the store; training 1" in workflow.trained(LOG)
    assert workflow.read(f"{SWEEP}/k_4/ae.pt") == before["k_4/ae.pt"]
    assert len(json.loads(workflow.read(TABLE))) == 3

    # One sparsity less trains nothing.
    workflow.configure()
    workflow.succeed(TABLE)
    assert workflow.read(TABLE) == before["metrics.json"]
    assert "training 0" in workflow.trained(LOG)

    # Nor does losing results/demo, while the store is there.
    shutil.rmtree(workflow.folder / "results" / "demo")
    workflow.succeed(TABLE)
    assert "2 of 2 SAEs are in the store; training 0" in workflow.trained(LOG)
    assert {name: workflow.read(f"{SWEEP}/{name}") for name in before} == before


def test_an_sae_is_the_same_alone_and_in_another_folder(workflow, tmp_path_factory):
    workflow.succeed(f"{SWEEP}/k_16/ae.pt")
    other = type(workflow)(tmp_path_factory.mktemp("other"))
    other.configure(
        {
            "models": {
                "demo": {"architectures": {"top_k": {"sweep": [16], "threshold_start_step": 10}}}
            },
            "logging": {"every_steps": 3},
        }
    )
    other.succeed(f"{SWEEP}/k_16/ae.pt")
    for name in ("ae.pt", "config.json"):
        path = f"{SWEEP}/k_16/{name}"
        assert workflow.read(path) == other.read(path)


def test_the_files_of_an_sae(workflow):
    workflow.succeed(f"{SWEEP}/k_4/ae.pt")
    folder = workflow.folder / SWEEP / "k_4"
    state = torch.load(folder / "ae.pt", weights_only=True)
    assert state["encoder.weight"].shape == (256, 128)
    assert state["threshold"] > 0
    trainer = json.loads((folder / "config.json").read_text())["trainer"]
    assert (trainer["k"], trainer["layer"], trainer["lm_name"]) == (4, 3, "demo")
    assert trainer["norm_factor"] > 0
    rows = (folder / "training.csv").read_text().splitlines()
    assert rows[0] == "step,tokens,learning_rate,loss,l2,l0,frac_variance_explained"
    assert [row.split(",")[0] for row in rows[1:]] == ["0", "10", "20", "30", "39"]
    provenance = (folder / "provenance.json").read_text()
    assert json.loads(provenance)["recipe"]["sparsity"] == 4
    assert str(workflow.folder) not in provenance
    # Saved SAEs take raw activations: the biases are in their units, not the normalised ones.
    assert state["b_dec"].norm() > 0.1 * trainer["norm_factor"]


def test_a_damaged_ae_in_the_store_is_made_again(workflow):
    workflow.succeed(f"{SWEEP}/k_4/ae.pt")
    path = workflow.folder / SWEEP / "k_4" / "ae.pt"
    right = path.read_bytes()
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))  # in place: the store's file as well
    shutil.rmtree(workflow.folder / SWEEP)
    output = workflow.succeed(f"{SWEEP}/k_4/ae.pt")
    assert "damaged (ae.pt has changed); making it again" in output
    assert path.read_bytes() == right


def test_what_was_trained_stays_when_a_later_job_fails(workflow):
    workflow.succeed(f"{SWEEP}/k_4/ae.pt")
    manifest = workflow.folder / "results/demo/tokens/evaluation/manifest.json"
    workflow.succeed("results/demo/tokens/evaluation/manifest.json")
    shard = next(manifest.parent.glob("shard_*"))
    shard.unlink()
    output = workflow.fail(TABLE)
    assert f"saemake: {shard.relative_to(workflow.folder)}: " in output
    assert "delete results/demo/tokens/evaluation/manifest.json" in output
    assert (workflow.folder / SWEEP / "k_4" / "ae.pt").exists()
    assert not (workflow.folder / TABLE).exists()
    manifest.unlink()  # the way out that it says
    workflow.succeed(TABLE)


@pytest.mark.parametrize("architecture", ["batch_top_k", "standard_new"])
def test_the_other_architectures_go_the_same_way(workflow, architecture):
    target = f"results/demo/L0/{architecture}/256/metrics.json"
    workflow.succeed(target)
    rows = json.loads(workflow.read(target))
    assert len(rows) == 2
    assert all(0 < row["l0"] < 256 for row in rows)
    assert all(row["ce_clean"] < row["ce_ablated"] for row in rows)
