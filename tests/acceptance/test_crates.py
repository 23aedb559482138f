"""Crates of a small suite, by `saemake crate`: RO-Crate's own validator accepts them, they hold
what the records say and nothing of this machine, and the same files give the same bytes.

Needs `make .venv-crate/peers`, which `make acceptance` runs.
"""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import LAYER, PROJECT, Workflow, copied, write_catalogue
from hub_server import LocalHub

pytestmark = pytest.mark.acceptance
VALIDATOR = PROJECT / ".venv-crate" / "bin"
METADATA = "ro-crate-metadata.json"
SWEEP = f"{LAYER}/top_k/256"
SAE = f"{SWEEP}/k_4"
FIGURE = f"{LAYER}/figures/loss_recovered_vs_l0.pdf"
REPORT = f"{LAYER}/report.html"
FETCHED = ("ae.pt", "config.json")
TARGETS = [f"{SWEEP}/metrics.json", f"{SAE}/ae.pt", FIGURE, REPORT]
# It extends Workflow Run Crate, Process Run Crate, Workflow RO-Crate and RO-Crate 1.1, and the
# validator checks these too.
STRICTEST, OTHERS = "provenance-run-crate", ["workflow-run-crate", "ro-crate-1.1"]
# What the validator recommends and no record has: who ran it, and pages of the software. saemake's
# workflow does not say that it follows Bioschemas' profile, which wants a creator.
NOT_RECORDED = {
    "The Action SHOULD have an agent that is a Person or Organization",
    "The Application SHOULD have a url",
    "The SoftwareApplication id SHOULD be an absolute URI",
    "The Main Workflow SHOULD comply with Bioschemas ComputationalWorkflow profile version 1.0 or"
    " later",
    "The Root Data Entity SHOULD have a link to a Contextual Entity representing the `author` of"
    " the RO-Crate",
    "The `publisher` property of a `Root Data Entity` SHOULD be an `Organization`",
}


def crate(workflow: Workflow, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "saemake", "crate", *words, "--configfile", workflow.config_file],
        cwd=workflow.folder,
        env=workflow.environment(PYTHONPATH=str(PROJECT)),
        capture_output=True,
        text=True,
        check=False,
    )


def packed(workflow: Workflow, *words: str) -> Path:
    """The crate; its place comes last."""
    done = crate(workflow, *words)
    assert done.returncode == 0, done.stderr
    return workflow.folder / words[-1]


def refused(workflow: Workflow, *words: str) -> str:
    done = crate(workflow, *words)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (workflow.folder / words[-1]).exists()
    return done.stderr


@pytest.fixture(scope="module")
def built(begun: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Two sweeps, with their report."""
    workflow = copied(begun, tmp_path_factory.mktemp("built"))
    sweeps = {name: {"sweep": [4, 8]} for name in ("top_k", "batch_top_k")}
    suite = {"architectures": list(sweeps)}
    workflow.configure({"models": {"demo": {"architectures": sweeps, "suite": suite}}})
    workflow.succeed(*TARGETS)
    return workflow


@pytest.fixture(scope="module")
def crates(built: Workflow) -> dict[str, Path]:
    """A crate of each target, as a folder."""
    return {
        target: packed(built, target, "--to", f"crates/{number}")
        for number, target in enumerate(TARGETS)
    }


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the validator with RO-Crate's context, which it can fetch nowhere here."""
    cache = tmp_path_factory.mktemp("cache") / "http"
    program = PROJECT / "tests" / "acceptance" / "remember_context.py"
    subprocess.run([VALIDATOR / "python", program, cache], check=True)
    return cache


def validate(place: Path, profile: str, context: Path, severity: str, *options: str) -> int:
    """The exit status of the validator: 0 if it accepts the crate."""
    done = subprocess.run(
        [
            *(VALIDATOR / "rocrate-validator", "validate", place, "--offline"),
            *("--cache-path", context, "--profile-identifier", profile, "--no-auto-profile"),
            *("--requirement-severity", severity, "--no-paging", "--verbose", *options),
        ],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode


def faults(place: Path, profile: str, context: Path) -> tuple[list[str], list[str]]:
    """What the validator finds: against requirements, and against recommendations."""
    report = context.with_name("report.json")
    report.unlink(missing_ok=True)
    to_json = ["--output-format", "json", "--output-file", str(report)]
    validate(place, profile, context, "recommended", *to_json)
    found = json.loads(report.read_text())
    # What it could not check is no success.
    assert found["statistics"]["total_passed_checks"] > 50
    exceptions = [c for c in found["skipped_check_details"] if c["category"] == "exception"]
    assert exceptions == []
    by_severity: dict[str, list[str]] = {"REQUIRED": [], "RECOMMENDED": []}
    for issue in found["issues"]:
        by_severity[issue["severity"]].append(issue["message"])
    return by_severity["REQUIRED"], by_severity["RECOMMENDED"]


def entities(place: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((place / METADATA).read_text())
    return {entity["@id"]: entity for entity in content["@graph"]}


def refs(value: Any) -> list[str]:
    every = value if isinstance(value, list) else [value]
    return [each["@id"] for each in every if isinstance(each, dict)]


def files(place: Path) -> Iterator[Path]:
    return (path for path in sorted(place.rglob("*")) if path.is_file())


@pytest.mark.parametrize(
    ("target", "profile"),
    [*((target, STRICTEST) for target in TARGETS), *((FIGURE, profile) for profile in OTHERS)],
)
def test_the_validator_accepts_a_crate(crates, context, target, profile):
    required, recommended = faults(crates[target], profile, context)
    assert required == []
    assert set(recommended) <= NOT_RECORDED


def test_the_validator_accepts_a_zip_and_refuses_a_crate_without_its_workflow(
    built, crates, context
):
    zipped = packed(built, FIGURE, "--to", "crates/figure.zip")
    # Its report as JSON fails for a zip file (rocrate-validator 0.13.0).
    assert validate(zipped, STRICTEST, context, "required") == 0
    damaged = shutil.copytree(crates[FIGURE], built.folder / "crates/damaged")
    content = json.loads((damaged / METADATA).read_text())
    content["@graph"] = [each for each in content["@graph"] if each["@id"] != "Snakefile"]
    (damaged / METADATA).write_text(json.dumps(content))
    assert validate(damaged, STRICTEST, context, "required") == 1
    assert faults(damaged, STRICTEST, context)[0] != []


@pytest.mark.parametrize("target", TARGETS)
def test_every_file_is_described_and_every_reference_leads_somewhere(built, crates, target):
    place = crates[target]
    known = entities(place)
    for path in files(place):
        name = path.relative_to(place).as_posix()
        if name == METADATA:
            continue
        said, content = known[name], path.read_bytes()
        assert said["sha256"] == hashlib.sha256(content).hexdigest()
        assert said["contentSize"] == str(len(content))
        assert name == "LICENSE" or refs(said["license"])
        if name.startswith("results/"):
            assert content == built.read(name)
    linked = {id_ for entity in known.values() for value in entity.values() for id_ in refs(value)}
    outside = {"https://w3id.org/ro/crate/1.1", "https://snakemake.github.io"}
    assert linked - set(known) == outside
    # Weights of the LM and tokens are named, with their checksums.
    shard = "results/demo/tokens/train/shard_00000.safetensors"
    assert not (place / shard).exists()
    for id_ in (f"#file/{shard}", "#model/demo/model.safetensors"):
        assert len(known[id_]["sha256"]) == 64


def test_jobs_are_chained_from_the_report_to_the_model(built, crates):
    known = entities(crates[REPORT])
    actions = [each for each in known.values() if each["@type"] == "CreateAction"]
    made_by = {
        id_: action
        for action in actions
        for id_ in refs(action["result"])
        if action["@id"] != "#workflow-run"
    }
    behind, todo = set(), [REPORT]
    while todo:
        action = made_by.get(id_ := todo.pop())
        if action is not None and id_ not in behind:
            assert action["startTime"] <= action["endTime"]
            behind.add(id_)
            todo += refs(action["object"])
    on_the_way = [f"{SAE}/ae.pt", f"{SAE}/metrics.json", "results/demo/tokens/train/manifest.json"]
    assert {REPORT, "results/demo/model.json", *on_the_way} <= behind
    training = made_by[f"{SAE}/ae.pt"]
    assert "#model/demo" in refs(training["object"])
    provenance = json.loads(built.read(f"{SAE}/provenance.json"))
    torch = f"pkg:pypi/torch@{provenance['software']['torch']}"
    assert {torch, "workflow/scripts/train.py"} <= set(refs(training["instrument"]))
    [recipe] = refs(known[f"{SAE}/ae.pt"]["isBasedOn"])
    assert recipe in refs(training["object"])
    assert json.loads((crates[REPORT] / recipe).read_text()) == provenance["recipe"]
    values = [known[id_] for id_ in refs(training["object"]) if id_.startswith("#value/")]
    said = [(value["name"], value["value"]) for value in values]
    assert ("recipe hash", provenance["recipe_hash"]) in said
    assert ("training.batch_tokens", 512) in said


def test_the_same_files_give_the_same_bytes_and_nothing_of_this_machine(built, crates):
    one = packed(built, FIGURE, SAE, "--to", "crates/one.zip")
    other = packed(built, SAE, FIGURE, "--to", "crates/other.zip")
    assert one.read_bytes() == other.read_bytes()
    machine = {str(built.folder), str(PROJECT), str(Path.home()), platform.node(), sys.prefix}
    places = [crates[target] for target in TARGETS]
    for path in (path for place in places for path in files(place)):
        content = path.read_bytes()
        assert [word for word in machine if len(word) > 3 and word.encode() in content] == []
    with zipfile.ZipFile(one) as archive:
        assert archive.testzip() is None


def test_weights_can_be_left_out(built, crates, context):
    place = packed(built, FIGURE, "--without-weights", "--to", "crates/light")
    assert not list(place.rglob("*.pt"))
    known, whole = entities(place), entities(crates[FIGURE])
    named = known[f"#file/{SAE}/ae.pt"]
    assert named["sha256"] == whole[f"{SAE}/ae.pt"]["sha256"]
    [training] = [each for each in known.values() if named["@id"] in refs(each.get("result"))]
    assert training["name"].startswith("train: ")
    assert faults(place, STRICTEST, context)[0] == []
    of_sae = packed(built, f"{SAE}/ae.pt", "--without-weights", "--to", "crates/sae")
    assert (of_sae / SAE / "ae.pt").is_file()


def test_what_was_edited_or_has_no_record_is_refused(built, tmp_path):
    workflow = copied(built, tmp_path)
    table = workflow.folder / SAE / "metrics.json"
    before = table.read_bytes()
    table.write_bytes(before.replace(b"demo", b"dame", 1))
    said = refused(workflow, FIGURE, "--to", "c.zip")
    assert f"{SAE}/metrics.json is damaged or edited: its sha256 is" in said
    assert f"{FIGURE} is not packed, since it is not current" in said
    workflow = copied(built, tmp_path / "again")
    # No job reads it, so that only its own bytes can tell.
    curve = workflow.folder / SAE / "training.csv"
    text = curve.read_text()
    curve.unlink()
    curve.write_text(text + "\n")
    assert f"{SAE}/training.csv is damaged or edited" in refused(workflow, SAE, "--to", "c")
    workflow = copied(built, tmp_path / "third")
    (workflow.folder / f"results/.store/made/{SAE}/ae.pt.json").unlink()
    assert f"{SAE}/ae.pt has no record of what it was made from" in refused(
        workflow, SAE, "--to", "c"
    )


def test_another_config_is_refused(built, tmp_path):
    workflow = copied(built, tmp_path)
    content = (workflow.folder / workflow.config_file).read_text()
    (workflow.folder / workflow.config_file).write_text(f"training: {{seed: 7}}\n{content}")
    said = refused(workflow, f"{SAE}/ae.pt", "--to", "c")
    assert "since it is not current: training.seed: 0 -> 7" in said


def test_files_that_are_gone_are_named_with_their_checksums(built, tmp_path, context):
    """A user may delete tokens when the SAEs are trained: Snakemake does not miss them."""
    workflow = copied(built, tmp_path)
    manifest = "results/demo/tokens/train/manifest.json"
    sum_ = hashlib.sha256(workflow.read(manifest)).hexdigest()
    shutil.rmtree((workflow.folder / manifest).parent)
    place = packed(workflow, f"{SAE}/ae.pt", "--to", "c")
    gone = entities(place)[f"#file/{manifest}"]
    assert gone["sha256"] == sum_
    assert not (place / manifest).exists()
    assert faults(place, STRICTEST, context)[0] == []


def test_published_weights_are_named_with_their_commit(built, tmp_path, context):
    workflow = copied(built, tmp_path / "work")
    repository, folder = "someone/saes_width-2pow8", "TopK_demo/resid_post_layer_3/trainer_0"
    catalogue = tmp_path / "catalogue.csv"
    entry = {"model": "demo", "layer": 3, "width": 256, "architecture": "top_k", "sparsity": 4}
    write_catalogue(catalogue, [{**entry, "repository": repository, "path": folder}])
    content = yaml.safe_load((workflow.folder / workflow.config_file).read_text())
    workflow.write({**content, "published": {"catalogue": str(catalogue)}})
    comparison = f"{SAE}/comparison.json".replace("results/", "published/")
    with LocalHub() as hub:
        fetched = {f"{folder}/{file}": workflow.read(f"{SAE}/{file}") for file in FETCHED}
        hub.commit("model", repository, fetched)
        workflow.succeed(comparison, **hub.environment(tmp_path / "home"))
    place = packed(workflow, comparison, "--to", "c")
    known = entities(place)
    pinned = json.loads(workflow.read(f"published/repositories/{repository}.json"))
    url = f"https://huggingface.co/{repository}/resolve/{pinned['commit']}/{folder}/ae.pt"
    weights = f"published/{SAE.removeprefix('results/')}/ae.pt"
    assert known[url]["sha256"] == known[f"#file/{weights}"]["sha256"]
    assert not (place / weights).exists()
    assert (place / SAE / "ae.pt").is_file()
    assert url in refs(known["#workflow-run"]["object"])
    assert faults(place, STRICTEST, context)[0] == []
