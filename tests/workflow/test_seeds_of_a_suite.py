"""A suite with several seeds, through the workflow."""

import json

import pytest
from conftest import LAYER

from saemake.base.store import sha256

pytestmark = pytest.mark.acceptance
SWEEP = f"{LAYER}/top_k/256"
FIGURE = f"{LAYER}/figures/stability_vs_l0.svg"
FRONTIER = f"{LAYER}/figures/loss_recovered_vs_l0.svg"


def suite(seeds):
    said = {"architectures": ["top_k"], "widths": ["256"], "seeds": seeds}
    share = {"share": ["sparsities", "seeds"]}
    return {"widths": {"256": 256}, "models": {"demo": {"suite": said}}, "passes": share}


def sums(workflow):
    return {
        str(path.relative_to(workflow.folder)): sha256(path)
        for path in sorted(workflow.folder.glob("results/demo/**/ae.pt"))
    }


def test_seeds_are_added_and_nothing_else_is_made_again(workflow):
    workflow.configure(suite(None))
    workflow.succeed(f"{SWEEP}/metrics.json")
    one, table = sums(workflow), workflow.read(f"{SWEEP}/metrics.json")
    refused = workflow.fail(f"{SWEEP}/stability.json")
    assert "stability compares seeds, and the suite of demo has one, 0" in refused
    workflow.configure(suite([0, 3]))
    said = workflow.succeed(FIGURE, FRONTIER)
    assert "compare the seeds of demo/L3/top_k/256" in said
    both = sums(workflow)
    assert len(both) == 2 * len(one)
    assert one.items() < both.items()
    rows = json.loads(workflow.read(f"{SWEEP}/metrics.json"))
    assert {row.get("seed") for row in rows} == {None, 3}
    pairs = json.loads(workflow.read(f"{SWEEP}/stability.json"))
    assert {pair["name"] for pair in pairs} == {
        path.removeprefix("results/").removesuffix("/ae.pt") for path in one
    }
    for pair in pairs:
        assert pair["seeds"] == [0, 3]
        assert pair["method"] == "optimal"
        assert 0 <= pair["shared"] <= min(pair["shared_by_decoder"], pair["shared_by_encoder"])
        assert 0 < pair["live_latents"] <= 256
        assert pair["l0"] > 0
    assert "Nothing to be done" in workflow.succeed(FIGURE, FRONTIER, f"{SWEEP}/stability.json")
    # Without the other seeds the table is what it was.
    workflow.configure(suite(None))
    workflow.succeed(f"{SWEEP}/metrics.json")
    assert workflow.read(f"{SWEEP}/metrics.json") == table
