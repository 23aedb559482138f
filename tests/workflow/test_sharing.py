"""SAEs of several jobs that train on one run of the LM, through the workflow."""

import re

import pytest
from conftest import copied

from saemake.base.store import sha256

# Of two architectures, two widths and two layers.
TARGETS = [
    f"results/demo/{place}/ae.pt"
    for place in ("L3/top_k/256/k_4", "L3/batch_top_k/128/k_4", "L4/top_k/256/k_8/seed_7")
]
SHARE = {"passes": {"share": ["sparsities", "widths", "architectures", "layers", "seeds"]}}
WIDTHS = {"widths": {"128": 128}}


def sums(workflow):
    return {
        str(path.relative_to(workflow.folder)): sha256(path)
        for path in sorted(workflow.folder.glob("results/demo/**/ae.pt"))
    }


def trained(workflow):
    """How many SAEs each train job found in the store, and trained."""
    logs = sorted((workflow.folder / "logs/train").rglob("*.log"))
    found = [re.search(r"(\d+) of (\d+) SAEs are in the store", log.read_text()) for log in logs]
    return sorted((int(match[1]), int(match[2])) for match in found if match)


@pytest.fixture(scope="module")
def apart(begun, tmp_path_factory):
    workflow = copied(begun, tmp_path_factory.mktemp("apart"))
    workflow.configure(WIDTHS)
    workflow.succeed(*TARGETS)
    assert trained(workflow) == [(0, 1), (0, 2), (0, 2)]
    return workflow


def test_the_first_job_trains_for_all_and_the_bytes_are_the_same(workflow, apart):
    workflow.configure({**WIDTHS, **SHARE})
    said = workflow.succeed(*TARGETS, "-n")
    clauses = re.findall(r"; on one run of the LM with (.*): 5 SAEs in all", said)
    assert len(clauses) == 3
    assert "demo/L3/batch_top_k/128" in " ".join(clauses)
    assert not (workflow.folder / "results/.store/passes").exists()
    workflow.succeed(*TARGETS, "--cores", "2")
    assert trained(workflow) == [(0, 5), (5, 5), (5, 5)]
    assert sums(workflow) == sums(apart)
    assert "Nothing to be done" in workflow.succeed(*TARGETS)
    # Nothing is left of what was written down, once nothing is wanted.
    assert not (workflow.folder / "results/.store/passes/demo.json").exists()
    # Nor is anything stale without sharing.
    workflow.configure(WIDTHS)
    assert "Nothing to be done" in workflow.succeed(*TARGETS)


def test_an_sae_that_fails_stops_its_own_job_only(workflow, apart):
    diverging = {"models": {"demo": {"architectures": {"standard_new": {"sweep": [1e39]}}}}}
    workflow.configure({**WIDTHS, **SHARE, **diverging})
    bad = "results/demo/L3/standard_new/256/penalty_1e+39/ae.pt"
    said = workflow.fail(*TARGETS[:2], bad)
    assert "penalty_1e+39: the loss is not finite" in said
    assert sums(workflow).items() <= sums(apart).items()
    assert {TARGETS[0], TARGETS[1]} <= set(sums(workflow))


def test_a_pass_that_no_sae_fits_into_is_one_line(workflow):
    workflow.configure({"passes": {**SHARE["passes"], "memory_gib": 0.1}})
    said = workflow.fail(TARGETS[0])
    assert said.splitlines()[-1].startswith("saemake: passes.memory_gib 0.1 is too little for demo")


# The tables of three jobs; the last of another layer.
TABLES = [
    f"results/demo/{place}/metrics.json"
    for place in ("L3/top_k/256/k_4", "L3/batch_top_k/128/k_4", "L4/top_k/256/k_8/seed_7")
]


def judged(workflow, evaluation):
    """How many things each evaluate job judged, of those that did."""
    logs = sorted((workflow.folder / "logs/evaluate").rglob(f"*{evaluation}.log"))
    found = [re.search(r"judging (\d+)$", log.read_text(), re.MULTILINE) for log in logs]
    return sorted(int(match[1]) for match in found if match)


def tables(workflow):
    return {
        str(path.relative_to(workflow.folder)): path.read_bytes()
        for path in sorted(workflow.folder.glob("results/demo/L*/*/*/**/metrics.json"))
    }


@pytest.mark.acceptance
def test_saes_of_a_layer_are_judged_in_one_run_of_the_lm(workflow, apart, tmp_path_factory):
    alone = copied(apart, tmp_path_factory.mktemp("judged_alone"))
    alone.succeed(*TABLES)
    workflow.configure({**WIDTHS, **SHARE})
    said = workflow.succeed(*TABLES, "-n")
    assert len(re.findall(r"; on one run of the LM with demo/L3/batch_top_k/128$", said, re.M)) == 2
    workflow.succeed(*TABLES, "--cores", "2")
    for evaluation in ("sae_bench_core", "dictionary_learning"):
        # The SAE of layer 4; of layer 3 the sweeps, in one, and the four baselines.
        assert judged(alone, evaluation) == [1, 2, 2, 4]
        assert judged(workflow, evaluation) == [1, 4, 4]
    assert tables(workflow) == tables(alone)
    assert "Nothing to be done" in workflow.succeed(*TABLES)
