"""Twelve edits of a built suite, and the jobs that each plans: only what the edit concerns."""

import re
from pathlib import Path

import pytest
import yaml
from conftest import CONFIG_FILE, PROJECT, Workflow, merged, raw_config

from saemake.base.store import Store
from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.files import suite_sweeps
from saemake.paths.sweeps import members
from saemake.recipes.training import sae_recipe

pytestmark = pytest.mark.long
SUITE = {"architectures": ["top_k", "standard_new"], "widths": ["256"]}
BUILT = {"models": {"demo": {"suite": SUITE}}}
BASELINES = {"evaluate_baselines": 2, "join_baselines": 1}
# One sweep; a sweep of top_k, whose ks are also those of the baselines; all.
SWEEP = {"train": 1, "evaluate": 2, "join": 1, "metrics": 1, "figure": 8, "report": 1}
TOP_K = {**SWEEP, **BASELINES, "metrics": 2}
SUITE_JOBS = {"train": 2, "evaluate": 4, "join": 2, "metrics": 2, "figure": 8, "report": 1}
JUDGED = {
    **{"evaluate": 2, "evaluate_baselines": 1, "join_baselines": 1},
    **{"join": 2, "metrics": 2, "figure": 8, "report": 1},
}


def demo(**keys):
    return {"models": {"demo": keys}}


def of(architecture, **keys):
    return demo(architectures={architecture: keys})


# What is laid over the config, the jobs planned, and how many SAEs the store lacks then.
EDITS = {
    "a sparsity added": (of("top_k", sweep=[4, 8, 16]), TOP_K, 1),
    "a sparsity taken away": (of("top_k", sweep=[4]), TOP_K, 0),
    "a penalty changed": (of("standard_new", sweep=[0.05, 0.3]), SWEEP, 1),
    "an architecture's hyperparameter": (of("top_k", auxk_alpha=0.1), SWEEP, 2),
    "the seed": ({"training": {"seed": 1}}, SUITE_JOBS, 4),
    "the recipe": ({"training": {"recipe": "dictionary_learning"}}, SUITE_JOBS, 4),
    "the model's budget": (
        demo(train_tokens=30_720),
        {**SUITE_JOBS, **BASELINES, "tokens": 1, "baselines": 1},
        4,
    ),
    "another model's budget": (
        {"models": {"gemma-2-2b": {"train_tokens": 250_000_000}}},
        {},
        0,
    ),
    "the documents that judge": (
        demo(evaluations={"dictionary_learning": {"documents": 12}}),
        {**JUDGED, "tokens": 1},
        0,
    ),
    "how SAE Bench's defects are treated": (
        {"evaluations": {"sae_bench_core": {"defects": "kept"}}},
        JUDGED,
        0,
    ),
    "a log interval and the snapshots'": (
        {"logging": {"every_steps": 7}, "snapshots": {"every_seconds": 5}},
        {},
        0,
    ),
    "checkpoints asked for": (
        of("top_k", checkpoints=[0, 0.5]),
        {**SWEEP, "figure": 9, "evaluate_checkpoints": 4, "join_checkpoints": 2},
        0,
    ),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    workflow = Workflow(tmp_path_factory.mktemp("built"))
    workflow.configure(BUILT)
    workflow.succeed("--cores", "2")
    return workflow


def planned(workflow):
    """Jobs by stage, of those that a plain run would run."""
    output = workflow.succeed("-n")
    if "Nothing to be done" in output:
        return {}
    table = output[output.index("Job stats:") :]
    counts: dict[str, int] = {}
    for rule, count in re.findall(r"^(\w+) +(\d+)$", table.split("total")[0], re.MULTILINE):
        stage = rule.partition("__")[0]
        counts[stage] = counts.get(stage, 0) + int(count)
    counts.pop("all", None)
    return counts


def to_train(workflow):
    """SAEs of the suite that the store lacks."""
    over = yaml.safe_load((workflow.folder / workflow.config_file).read_text())
    config = read(raw_config(over), PROJECT, [CONFIG_FILE])
    store = Store(Path(workflow.folder, "results/.store"), "saes")
    return sum(
        not store.holds(sae_recipe(config, sae).hash)
        for sweep in suite_sweeps(config, "demo", Hookpoint(3))
        for sae in members(config, sweep)
    )


@pytest.fixture(autouse=True)
def _as_built(built):
    yield
    built.configure(BUILT)


def test_twelve_edits_plan_what_they_concern(built):
    assert planned(built) == {}
    print("\n| edit | SAEs to train | jobs planned |\n| --- | --- | --- |")
    for edit, (over, expected, saes) in EDITS.items():
        built.configure(merged(over, BUILT))
        found = planned(built)
        said = ", ".join(f"{count} {stage}" for stage, count in found.items()) or "none"
        print(f"| {edit} | {to_train(built)} | {said} |")
        assert (found, to_train(built)) == (expected, saes), edit
    built.configure(BUILT)
    assert planned(built) == {}


def test_an_edited_comment_or_module_plans_nothing(built):
    """The files' times and hashes are not among the triggers: only recipes are."""
    (PROJECT / "saemake/architectures/losses.py").touch()
    config = built.folder / built.config_file
    config.write_text(f"# a comment\n{config.read_text()}# and another\n")
    assert planned(built) == {}


def test_a_lost_figure_is_drawn_again_and_nothing_else(built):
    (built.folder / "results/demo/L3/figures/loss_recovered_vs_l0.pdf").unlink()
    assert planned(built) == {"figure": 1, "report": 1}
