"""Twelve edits of a built suite, and the jobs that each plans: only what the edit concerns."""

import re

import pytest
from conftest import PROJECT, Workflow, merged

pytestmark = pytest.mark.long
SUITE = {"architectures": ["top_k", "standard_new"], "widths": ["256"]}
BUILT = {"models": {"demo": {"suite": SUITE}}}
TRAINED = {"train": 1, "evaluate": 1, "metrics": 1, "figure": 2}
EVERYTHING = {"tokens": 1, "train": 2, "evaluate": 2, "metrics": 2, "figure": 2}
JUDGED = {"evaluate": 1, "metrics": 1, "figure": 2}


def demo(**keys):
    return {"models": {"demo": keys}}


def of(architecture, **keys):
    return demo(architectures={architecture: keys})


EDITS = {
    "a sparsity added": (of("top_k", sweep=[4, 8, 16]), TRAINED),
    "a sparsity taken away": (of("top_k", sweep=[4]), TRAINED),
    "a penalty changed": (of("standard_new", sweep=[0.05, 0.3]), TRAINED),
    "an architecture's hyperparameter": (of("top_k", auxk_alpha=0.1), TRAINED),
    "the seed": ({"training": {"seed": 1}}, EVERYTHING | {"tokens": 0}),
    "the recipe": ({"training": {"recipe": "dictionary_learning"}}, EVERYTHING | {"tokens": 0}),
    "the model's budget": (demo(train_tokens=30_720), EVERYTHING),
    "another model's budget": ({"models": {"gemma-2-2b": {"train_tokens": 250_000_000}}}, {}),
    "the number of documents that judge": (
        demo(evaluation_documents=12),
        {"tokens": 1, "evaluate": 2, "metrics": 2, "figure": 2},
    ),
    "how top_k is judged": ({"evaluation": {"inference": "threshold"}}, JUDGED),
    "a log interval and the snapshots'": (
        {"logging": {"every_steps": 7}, "snapshots": {"every_seconds": 5}},
        {},
    ),
    "checkpoints asked for": (of("top_k", checkpoints=[0, 0.5]), {"train": 1}),
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


def test_twelve_edits_plan_what_they_concern(built):
    assert planned(built) == {}
    print("\n| edit | jobs planned |\n| --- | --- |")
    for edit, (over, expected) in EDITS.items():
        built.configure(merged(over, BUILT))
        found = planned(built)
        said = ", ".join(f"{count} {stage}" for stage, count in found.items()) or "none"
        print(f"| {edit} | {said} |")
        assert found == {stage: count for stage, count in expected.items() if count}, edit
    built.configure(BUILT)
    assert planned(built) == {}


def test_an_edited_comment_or_module_plans_nothing(built):
    """The files' times and hashes are not among the triggers: only recipes are."""
    (PROJECT / "saemake/architectures/losses.py").touch()
    config = built.folder / built.config_file
    config.write_text(f"# a comment\n{config.read_text()}# and another\n")
    assert planned(built) == {}


def test_a_changed_figure_is_drawn_again_and_nothing_else(built):
    (built.folder / "results/demo/L3/figures/loss_recovered_vs_l0.pdf").unlink()
    assert planned(built) == {"figure": 1}
