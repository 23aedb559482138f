"""SAEs at other sites than the residual stream after a block, by their names."""

import json

import pytest
from conftest import Workflow, copied

import saemake

pytestmark = pytest.mark.acceptance

PLACE = "results/demo/L3.attn_out"
SWEEP = f"{PLACE}/top_k/256"
SUITE = {"layers": [2, 3], "sites": ["attn_out", "mlp_out"], "architectures": ["top_k"]}
OVER = {
    "models": {"demo": {"suite": {**SUITE, "widths": ["256"]}}},
    "passes": {"share": ["sparsities", "sites"]},
    "figures": {
        "sites": {"sweeps": ["demo/L3.*"], "y": "sae_bench_core.ce_loss_score", "hue": "site"}
    },
}


@pytest.fixture(scope="module")
def built(begun, tmp_path_factory) -> Workflow:
    workflow = copied(begun, tmp_path_factory.mktemp("sites"))
    workflow.configure(OVER)
    targets = [f"{PLACE}/report.html", "results/figures/sites.svg", f"{SWEEP}/k_4/features.html"]
    workflow.succeed(*targets, "saelens/demo/L3.attn_out/top_k/256/k_4/cfg.json")
    return workflow


def test_an_sae_at_another_site_is_trained_and_judged_there(built):
    rows = json.loads(built.read(f"{SWEEP}/metrics.json"))
    assert {(row["layer"], row["site"]) for row in rows} == {(3, "attn_out")}
    identity = next(row for row in rows if row["architecture"] == "identity")
    assert identity["name"] == "demo/L3.attn_out/baselines/identity"
    assert identity["dictionary_learning"]["frac_recovered"] == 1.0
    saes = [row for row in rows if row["width"] is not None]
    assert saes
    for row in saes:
        assert 0 < row["dictionary_learning"]["frac_recovered"] < 1
        assert 0 < row["dictionary_learning"]["frac_variance_explained"] < 1
    recipe = json.loads(built.read(f"{SWEEP}/k_4/provenance.json"))["recipe"]
    assert (recipe["layer"], recipe["read"], "write" in recipe) == (3, "attn_out", False)


def test_sites_of_a_layer_share_a_run_of_the_lm(built):
    """The first job trains the SAEs of both."""
    said = sorted(
        built.trained(f"demo/L3.{site}/top_k/256.log") for site in ("attn_out", "mlp_out")
    )
    assert sorted(line[line.index("INFO") :] for line in said) == [
        "INFO saemake.training.train: 0 of 4 SAEs are in the store; training 4",
        "INFO saemake.training.train: 4 of 4 SAEs are in the store; training 0",
    ]


def test_a_notebook_has_the_activations_of_the_site(built, monkeypatch):
    monkeypatch.chdir(built.folder)
    sae = saemake.load(f"{SWEEP}/k_4")
    assert sae.config["trainer"]["site"] == "attn_out"
    assert sae.config["trainer"]["submodule_name"] == "attn_out_layer_3"
    seen = sae.activations("Once upon a time")
    error = (sae.decode(seen.f) - seen.x).square().sum() / seen.x.square().sum()
    assert error < 0.9
    table = saemake.sweep(SWEEP)
    assert set(table["site"]) == {"attn_out"}


def test_the_export_names_the_hook_of_transformer_lens(built):
    cfg = json.loads(built.read("saelens/demo/L3.attn_out/top_k/256/k_4/cfg.json"))
    assert cfg["metadata"]["hook_name"] == "blocks.3.hook_attn_out"


def test_a_site_that_the_model_lacks_ends_in_one_line(built):
    said = built.fail("results/demo/L3.resid_mid/top_k/256/k_4/ae.pt")
    assert "model 'demo' has no resid_mid in its block 3" in said


def test_a_misspelt_site_is_refused_in_one_line(built):
    target = "results/demo/L3.atn_out/top_k/256/metrics.json"
    said = "no site 'atn_out' in a block; did you mean 'attn_out'?"
    assert built.fail(target, "-n").splitlines()[-1] == f"saemake: {target}: {said}"
