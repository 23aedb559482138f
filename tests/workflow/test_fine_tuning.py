"""Fine-tuning through the workflow: a chain of model entries, whose SAEs start from each other."""

import json
import subprocess
import sys

import pytest
from conftest import SMALL, Workflow, copied, merged, raw_config

pytestmark = pytest.mark.acceptance

DEMO = raw_config(SMALL)["models"]["demo"]
SAE = "L3/top_k/256/k_4"
OTHER_TEXT = {
    "folder": "resources/demo/text",
    "train_split": "validation",
    "evaluation_split": "validation",
}


def entries(**more):
    """`tuned` goes on from the demo on other text, and `again` from `tuned`; in two of the
    architectures."""
    suite = {"suite": {"architectures": ["top_k", "batch_top_k"]}, **more}
    tuned = {**suite, "text": "other", "training": {"start_from": "results/demo/{sae}"}}
    again = {**suite, "training": {"start_from": "results/tuned/{sae}"}}
    models = {"tuned": merged(tuned, DEMO), "again": merged(again, DEMO)}
    return {"models": models, "texts": {"other": OTHER_TEXT}}


@pytest.fixture(scope="module")
def tuned(begun, tmp_path_factory) -> Workflow:
    workflow = copied(begun, tmp_path_factory.mktemp("tuned"))
    workflow.configure(entries())
    workflow.succeed(f"results/again/{SAE}/ae.pt")
    return workflow


def saemake(workflow: Workflow, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "saemake", *arguments, "--configfile", workflow.config_file],
        cwd=workflow.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout
    return done.stdout


def test_a_chain_is_built_from_its_beginning_and_stays(tuned):
    said = {
        model: json.loads(tuned.read(f"results/{model}/{SAE}/provenance.json"))
        for model in ("demo", "tuned", "again")
    }
    for model, source in (("tuned", "demo"), ("again", "tuned")):
        begun = {key: said[source][key] for key in ("ae_sha256", "recipe_hash")}
        assert said[model]["start_from"] == begun
        assert said[model]["recipe"]["start_from"] == begun["recipe_hash"]
    assert "start_from" not in said["demo"]
    assert "Nothing to be done" in tuned.succeed(f"results/again/{SAE}/ae.pt")
    assert "identical" in saemake(tuned, "verify", f"again/{SAE}")


def test_what_changes_the_source_makes_the_chain_stale_and_why_says_it(tuned):
    over = merged({"models": {"demo": {"training": {"learning_rate": 2e-3}}}}, entries())
    tuned.configure(over)
    dry = tuned.succeed(f"results/again/{SAE}/ae.pt", "-n")
    for model in ("demo", "tuned", "again"):
        assert f"{model}/L3/top_k/256" in dry
    assert "start_from: " in saemake(tuned, "why", f"results/again/{SAE}/ae.pt")
    plan = saemake(tuned, "plan", f"results/again/{SAE}/ae.pt")
    assert "demo/L3/top_k/256" in plan
    tuned.configure(entries())
    assert "Nothing to be done" in tuned.succeed(f"results/again/{SAE}/ae.pt")


def test_the_first_job_of_a_shared_pass_waits_for_the_sources_of_all(tuned, tmp_path):
    workflow = copied(tuned, tmp_path)
    over = {"passes": {"share": ["sparsities", "architectures", "widths"]}}
    workflow.configure(merged(over, entries()))
    kinds = ("top_k", "batch_top_k")
    workflow.succeed(*(f"results/tuned/L2/{kind}/256/k_4/ae.pt" for kind in kinds))
    logs = [workflow.trained(f"tuned/L2/{kind}/256.log") for kind in kinds]
    assert any("0 of 4 SAEs are in the store; training 4" in line for line in logs)
    for kind in kinds:
        path = f"L2/{kind}/256/k_4/provenance.json"
        said = json.loads(workflow.read(f"results/tuned/{path}"))
        source = json.loads(workflow.read(f"results/demo/{path}"))
        assert said["start_from"]["ae_sha256"] == source["ae_sha256"]


@pytest.mark.parametrize(
    ("start", "target", "words"),
    [
        ("results/tuned/{sae}", SAE, "SAEs of tuned cannot start from SAEs of tuned"),
        ("results/again/{sae}", SAE, "a circle: "),
        ("results/demo/{place}/top_k/{width}/k_4", "L3/gated/256/penalty_0.1", "other weights"),
    ],
)
def test_bad_starts_are_one_line(tuned, tmp_path, start, target, words):
    workflow = copied(tuned, tmp_path)
    workflow.configure(
        merged({"models": {"tuned": {"training": {"start_from": start}}}}, entries())
    )
    said = workflow.fail(f"results/tuned/{target}/ae.pt")
    assert words in said
    (line,) = (line for line in said.splitlines() if line.startswith("saemake: "))
    assert "training.start_from" in line
