"""`saemake`: why, verify, store, on what the workflow has built."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import copied

from saemake.__main__ import main
from saemake.base import source

pytestmark = pytest.mark.acceptance

# One worker's: what they share is built once.
SWEEP = "results/demo/L3/top_k/256"
TABLE = f"{SWEEP}/metrics.json"
SAE = f"{SWEEP}/k_4/ae.pt"


@pytest.fixture(scope="module")
def built(begun, tmp_path_factory):
    workflow = copied(begun, tmp_path_factory.mktemp("built"))
    workflow.succeed(TABLE)
    return workflow


@pytest.fixture(autouse=True)
def _configured(built):
    built.configure()


def saemake(built, command, *arguments, status):
    done = subprocess.run(
        [sys.executable, "-m", "saemake", command, *arguments, "--configfile", built.config_file],
        cwd=built.folder,
        # Whatever the shell of whoever tests says: a line's place must not depend on it.
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


def over(**top_k):
    return {"models": {"demo": {"architectures": {"top_k": top_k}}}}


def test_what_is_current_is_said_to_be(built):
    output = saemake(built, "why", SAE, TABLE, status=0)
    assert output == f"{SAE}: current\n{TABLE}: current\n"


def test_the_fields_that_differ_are_named_old_and_new(built):
    built.configure({**over(auxk_alpha=0.5), "training": {"recipe": "dictionary_learning"}})
    lines = saemake(built, "why", SAE, status=1).splitlines()
    assert lines == [
        f"{SAE}: not current",
        "  settings.auxk_alpha: 0.03125 -> 0.5 (demo/L3/top_k/256/k_4)",
        '  training.recipe: "saebench" -> "dictionary_learning" (demo/L3/top_k/256/k_4)',
    ]


def test_an_evaluation_alone_can_be_stale(built):
    core = {"sae_bench_core": {"defects": "kept"}}
    built.configure({"models": {"demo": {"evaluations": core}}})
    output = saemake(built, "why", SAE, TABLE, status=1)
    assert f"{SAE}: current" in output
    assert (
        'evaluations.sae_bench_core.settings.defects: "mended" -> "kept"'
        " (demo/L3/baselines/identity and 5 more)" in output
    )


def test_a_folder_is_answered_whole(built):
    folder = f"{SWEEP}/k_4"
    assert saemake(built, "why", folder, "results", status=0) == (
        f"{folder}: current\nresults: current\n"
    )
    built.configure(over(sweep=[16]))
    said = saemake(built, "why", SWEEP, status=1).splitlines()
    with_k_4 = f"  {SWEEP}/k_16/ae.pt and 3 more: made with demo/L3/top_k/256/k_4, unlike now"
    assert with_k_4 in said
    # Without the sweep it is an SAE by itself.
    with_k_16 = f"  {SWEEP}/k_4/ae.pt and 3 more: made with demo/L3/top_k/256/k_16, unlike now"
    assert with_k_16 in said
    (built.folder / SWEEP / "k_x").mkdir()
    (built.folder / SWEEP / "k_x" / "ae.pt").touch()
    said = saemake(built, "why", SWEEP, status=1).splitlines()
    assert any(
        line.startswith(f"  not of this config: {SWEEP}/k_x/ae.pt: no sparsity 'k_x'")
        for line in said
    )
    shutil.rmtree(built.folder / SWEEP / "k_x")
    assert "k_x" in saemake(built, "why", f"{SWEEP}/k_x", status=2)
    missing = saemake(built, "why", f"{SWEEP}/k_5", status=1)
    assert f"{SWEEP}/k_5/metrics.json does not exist" in missing
    elsewhere = SWEEP.replace("L3", "L4")
    assert f"{elsewhere}/metrics.json does not exist" in saemake(built, "why", elsewhere, status=1)
    built.configure()
    absolute = str(built.folder.resolve() / folder)
    assert saemake(built, "why", absolute, status=0) == f"{absolute}: current\n"


def test_a_table_that_was_edited_is_named(built):
    path = built.folder / TABLE
    right, times = path.read_bytes(), path.stat()
    path.write_bytes(right.replace(b"0", b"1", 1))
    try:
        assert f"{TABLE} is damaged or edited" in saemake(built, "why", TABLE, status=1)
    finally:
        path.write_bytes(right)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_plan_says_what_it_links_and_what_it_trains(built, tmp_path):
    workflow = copied(built, tmp_path)
    shutil.rmtree(workflow.folder / SWEEP)
    said = workflow.succeed(TABLE, "-n")
    assert "link 2 SAEs demo/L3/top_k/256 (k_4, k_16) from the store\n" in said
    assert "link sae_bench_core of demo/L3/top_k/256 from the store (2 of 2)\n" in said
    workflow.configure(over(sweep=[4, 8, 16]))
    said = workflow.succeed(TABLE, "-n")
    assert (
        "train 1 SAE demo/L3/top_k/256 (k_8), link 2 (k_4, k_16) from the store: 20,480 tokens"
        in said
    )
    assert (
        "evaluate demo/L3/top_k/256 by sae_bench_core on 24 contexts of 128, 2 of 3 from the"
        in said
    )
    assert (
        "baselines of demo/L3 by sae_bench_core on 24 contexts of 128, 4 of 5 from the store"
        in said
    )
    assert "replaces" not in said


def test_what_another_config_made_is_not_replaced_without_a_word(built, tmp_path):
    """In the plan and in the run, on the screen, with what becomes of it."""
    workflow = copied(built, tmp_path)
    workflow.configure({"training": {"seed": 1}})
    line = (
        f"    replaces {SAE} and 7 more, of another config (training.seed: 0 -> 1). The old SAEs"
        " stay in the store. To keep both at hand, give one a model entry of its own name\n"
    )
    assert line in workflow.succeed(SAE, "-n")
    before = workflow.read(SAE)
    assert line in workflow.succeed(SAE)
    assert workflow.read(SAE) != before
    stored = (workflow.folder / "results/.store/saes").glob("*/ae.pt")
    assert before in [path.read_bytes() for path in stored]
    # And back, without training.
    workflow.configure()
    said = workflow.succeed(SAE)
    assert "link 2 SAEs demo/L3/top_k/256 (k_4, k_16) from the store\n" in said
    assert "of another config (training.seed: 1 -> 0)" in said
    assert workflow.read(SAE) == before
    shutil.rmtree(workflow.folder / "results/.store/saes")
    workflow.configure({"training": {"seed": 1}})
    assert "The store does NOT have the old: move it away" in workflow.succeed(SAE, "-n")


def test_a_figure_of_another_suite_is_not_current(built, tmp_path):
    """Two configs draw it at one path."""
    workflow = copied(built, tmp_path)
    figure = "results/demo/L3/figures/loss_recovered_vs_l0.pdf"
    suite = {"models": {"demo": {"suite": {"architectures": ["top_k"]}}}}
    workflow.configure(suite)
    workflow.succeed(figure)
    assert saemake(workflow, "why", figure, status=0) == f"{figure}: current\n"
    suite["models"]["demo"]["suite"]["architectures"].append("standard_new")
    workflow.configure(suite)
    other = "results/demo/L3/standard_new/256"
    said = saemake(workflow, "why", figure, status=1)
    assert f"{figure}: made without {other}/metrics.json\n" in said
    assert (
        f"    replaces {figure} and 1 more, of another config (does not show {other}). To keep both"
        in workflow.succeed(figure, "-n")
    )


def test_what_is_missing_is_said_to_be(built):
    built.configure(over(sweep=[4, 16, 64]))
    output = saemake(built, "why", f"{SWEEP}/k_64/ae.pt", status=1)
    assert f"{SWEEP}/k_64/ae.pt does not exist; a run trains it" in output


def test_a_path_that_is_none_is_refused_in_one_line(built):
    output = saemake(built, "why", f"{SWEEP}/k_0/ae.pt", status=2)
    assert output == (
        f"saemake: {SWEEP}/k_0/ae.pt: 'k_0' cannot be a sparsity of top_k (input should be greater"
        " than 0); known: k_4, k_16\n"
    )
    assert "name a file of an SAE" in saemake(built, "verify", "results/demo/model.json", status=2)


def test_verify_trains_again_and_compares_bytes(built):
    output = saemake(built, "verify", TABLE, status=0)
    assert output.count(": identical, sha256 ") == 2


def test_verify_compares_metrics_where_the_software_is_another(built):
    """As if k_4 had been trained elsewhere: other bytes of the same quality, then of another."""
    folder = built.folder / SWEEP / "k_4"
    files = {name: (folder / name).read_bytes() for name in ("ae.pt", "provenance.json")}
    provenance = json.loads(files["provenance.json"])
    provenance["software"]["torch"] = "2.0.0"
    try:
        other = torch.load(built.folder / SWEEP / "k_16" / "ae.pt", weights_only=True)
        saved = io.BytesIO()
        torch.save({**other, "k": torch.tensor(4, dtype=torch.int32)}, saved)
        for name, weights in (("k_4", files["ae.pt"] + b" "), ("k_16", saved.getvalue())):
            rewrite(folder, weights, provenance)
            output = saemake(built, "verify", SAE, status=0 if name == "k_4" else 1)
            assert "the bytes differ, and so do: torch (2.0.0, here 2.13.0" in output
            assert ("agree" if name == "k_4" else "DIFFER") in output
        provenance["software"]["torch"] = json.loads(files["provenance.json"])["software"]["torch"]
        rewrite(folder, files["ae.pt"] + b" ", provenance)
        assert "DIFFERS on the same device and software" in saemake(built, "verify", SAE, status=1)
    finally:
        for name, content in files.items():
            (folder / name).unlink()
            (folder / name).write_bytes(content)


def rewrite(folder, weights, provenance):
    said = {**provenance, "ae_sha256": hashlib.sha256(weights).hexdigest()}
    for name, content in (("ae.pt", weights), ("provenance.json", json.dumps(said).encode())):
        (folder / name).unlink()  # the store's file stays as it is
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("in_store", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_damaged_sae_has_one_remedy_which_mends_it(built, in_store):
    path = built.folder / SAE
    right = path.read_bytes()
    if not in_store:
        path.unlink()
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))  # through the link, where there is one
    judged = f"{SWEEP}/k_4/dictionary_learning.json"
    said = [
        saemake(built, "why", SAE, status=1),
        saemake(built, "verify", SAE, status=2),
        built.fail(judged, "--force"),
    ]
    assert "cannot be verified" in said[1]
    remedy = f"delete it and build it again: snakemake {SAE} (with the options of your run)"
    for output in said:
        assert f"{SAE}" in output
        assert "damaged" in output
        # The last words of a run name the job's log after it.
        said_of_it = [line for line in output.splitlines() if "delete" in line]
        assert {line.split("; its log is")[0].split("; ")[-1] for line in said_of_it} == {remedy}
    path.unlink()
    built.succeed(SAE)
    assert path.read_bytes() == right
    assert saemake(built, "why", SAE, status=0) == f"{SAE}: current\n"
    built.succeed(judged, TABLE)


def test_the_store_says_what_it_holds_and_prunes_what_no_config_names(built):
    def counts():
        lines = saemake(built, "store", status=0).splitlines()[1:8]
        return {line.split()[0]: (int(line.split()[1]), int(line.split()[4])) for line in lines}

    assert counts() == {
        "saes": (2, 0),
        "evaluations": (12, 0),  # of two SAEs, two PCAs, one whole and the identity
        "checkpoints": (0, 0),
        "baselines": (1, 0),
        "tokens": (3, 0),
        "snapshots": (0, 0),
        "revisions": (0, 0),
    }
    built.configure(over(sweep=[16]))
    assert counts()["saes"] == (2, 1)
    said = saemake(built, "store", status=0)
    assert "\n  saes: demo/L3/top_k/256/k_4 (not in the sweep)\n" in said
    assert "\n  evaluations: sae_bench_core of demo/L3/top_k/256/k_4\n" in said
    assert "\n  evaluations: sae_bench_core of the baseline pca/k_4 of demo/L3/baselines\n" in said
    # Nobody is at the terminal to say yes.
    refused = saemake(built, "store", "--prune", status=2).splitlines()[-1]
    assert refused.startswith("saemake: store --prune would remove 5 entries (")
    assert "nothing was removed: add --yes" in refused
    assert (counts()["saes"], counts()["evaluations"]) == ((2, 1), (12, 4))
    saemake(built, "store", "--prune", "--yes", status=0)
    assert (counts()["saes"], counts()["evaluations"]) == ((1, 0), (8, 0))
    assert (built.folder / SAE).exists()  # a path under results/ is a link of its own
    built.configure()
    assert "a run links it" not in saemake(built, "why", SAE, status=0)


def line(folder, *words):
    """The one line that a command which cannot be done gives."""
    done = subprocess.run(
        [sys.executable, "-m", "saemake", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    return done.stderr.removeprefix("saemake: ").removesuffix("\n")


def test_a_config_file_that_cannot_be_read_is_one_line(built, tmp_path):
    none = tmp_path / "no.yaml"
    assert line(built.folder, "store", "--configfile", str(none)) == (
        f"{none}: there is no such config file"
    )
    none.write_text("widths:\n a: b: c\n")
    assert line(built.folder, "plan", "--configfile", str(none)).startswith(
        f"{none}, line 2: not valid YAML (mapping values are not allowed here); correct"
    )


@pytest.mark.parametrize("command", ["why", "verify", "plan"])
def test_a_path_after_configfile_is_one_line_with_the_command_put_right(built, command):
    assert line(built.folder, command, "--configfile", built.config_file, SAE) == (
        f"{SAE} comes after --configfile, which takes it as its own value; name targets first:"
        f" saemake {command} {SAE} --configfile {built.config_file}"
    )


@pytest.mark.parametrize("command", [["why", SAE], ["verify", SAE], ["store"]])
def test_a_folder_without_results_is_named(tmp_path, monkeypatch, capsys, command):
    """Where nothing was built in the project's folder either."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "ROOT", tmp_path)
    assert main(command) == 2
    assert capsys.readouterr().err == (
        f"saemake: there is no folder results/ in {tmp_path}; run this in the folder where you ran"
        " snakemake\n"
    )


def test_a_device_that_is_none_is_told_the_nearest(built):
    said = line(built.folder, "plan", SAE, "--device", "a100", "--configfile", built.config_file)
    assert said == "no device 'a100' in the config; did you mean 'a100-80gb'?"


def test_build_runs_snakemake_from_a_folder_below(built):
    config_file = str(built.folder / built.config_file)
    done = subprocess.run(
        [sys.executable, "-m", "saemake", "build", "k_4", "--configfile", config_file, "-n"],
        cwd=built.folder / SWEEP,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"saemake: builds in {built.folder}\n")
    assert "Nothing to be done" in done.stdout + done.stderr
