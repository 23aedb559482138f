"""Bad input: one clear line, status not 0, nothing lost and no file under a final name."""

import hashlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import PROJECT, copied

FOLDER = "results/demo/L3/top_k/256/k_4"
TARGET = f"{FOLDER}/dictionary_learning.json"


@pytest.fixture
def workflow(fresh):
    return fresh


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("results/dmeo/L3/top_k/256/metrics.json", "no model 'dmeo' in the config; did you mean"),
        ("results/demo/L3/topk/256/metrics.json", "did you mean 'top_k'?"),
        ("results/demo/L3/top_k/25x/metrics.json", "no width '25x' in the config; did you mean"),
        ("results/demo/L3/top_k/2000000/k_4/ae.pt", "more than the most, 1,048,576 ('1024k')"),
        ("results/demo/L3/top_k/256/k_x/ae.pt", "no sparsity 'k_x' in the config; did you mean"),
        ("results/demo/L3/top_k/256/k_0/ae.pt", "'k_0' cannot be a sparsity of top_k"),
        ("results/demo/L3/top_k/256/k_257/ae.pt", "needs 257 latents, more than the 256 of width"),
        ("results/demo/L3/standard/256/penalty_-1/ae.pt", "'penalty_-1' cannot be a sparsity"),
        ("results/demo/L3/standard/256/penalty_0.030/ae.pt", "is spelt 'penalty_0.03'"),
        ("results/demo/L3/top_k/256/k_4/seed_0/ae.pt", "seed 0 is the config's"),
        ("results/demo/L3/figures/loss_vs_l0.pdf", "did you mean 'loss_recovered_vs_l0'?"),
        ("results/tiny/L3/top_k/256/metrics.json", "of your own has it, add --configfile FILE"),
        ("result/demo/L3/top_k/256/metrics.json", "mean 'results/demo/L3/top_k/256/metrics.json'?"),
        ("results/demo/L7/top_k/256/metrics.json", "demo has layers L0 to L5, not L7"),
    ],
)
def test_a_wrong_path(workflow, target, line):
    output = workflow.fail(target)
    assert f"{target}: " in output
    assert line in output
    assert not (workflow.folder / "results").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--resources", "gpu=1"],
        ["--configfile", "small.yaml"],
        ["--config", "publishing={private: true}"],
        ["--set-threads", "tokens=1"],
        ["--rerun-triggers", "mtime"],
    ],
)
def test_a_target_after_an_option_is_one_line_with_the_command_put_right(workflow, options):
    output = workflow.fail("-n", *options, TARGET)
    said, command = output.removesuffix("\n").split("; name targets first: ")
    assert said == f"saemake: {TARGET} comes after {options[0]}, which takes it as its own value"
    program, *words = shlex.split(command)
    assert program == "snakemake"
    done = subprocess.run(
        [workflow.command()[0], *words],
        cwd=workflow.folder,
        env=workflow.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "train 2 SAEs demo/L3/top_k/256" in done.stdout


@pytest.mark.parametrize("name", ["own.yaml", "none.yaml"])
def test_a_config_file_that_cannot_be_read(workflow, name):
    (workflow.folder / "own.yaml").write_text("widths:\n  256: 256\n  a: b: c\n")
    output = workflow.fail(TARGET, "--configfile", name)
    assert output.startswith(f"saemake: {name}")
    assert ("own.yaml, line 3: not valid YAML" if name == "own.yaml" else "no such") in output
    assert len(output.splitlines()) == 1


def test_a_width_named_by_a_number(workflow):
    workflow.configure({"widths": {512: 512}})
    output = workflow.succeed("results/demo/L3/top_k/512/k_4/ae.pt", "-n")
    assert "train 2 SAEs demo/L3/top_k/512" in output


def test_an_unknown_config_key(workflow):
    workflow.configure({"training": {"learning_rat": 1e-3}})
    output = workflow.fail(TARGET)
    line = "config key 'training.learning_rat': unknown; did you mean 'learning_rate'?"
    assert line in output
    assert "small.yaml)" in output


def test_a_width_smaller_than_k(workflow):
    workflow.configure({"widths": {"tiny": 8}})
    output = workflow.fail("results/demo/L3/top_k/tiny/metrics.json")
    assert (
        "needs 16 latents, more than the 8 of widths.tiny; choose a larger width or other values"
        in output
    )


def test_a_text_too_short_says_how_much_it_gave(workflow):
    workflow.configure({"models": {"demo": {"train_tokens": 50_000_000}}})
    output = workflow.fail("results/demo/tokens/train/manifest.json")
    assert "gave 2,7" in output
    assert "fewer than the 50,0" in output
    assert "set models.demo.train_tokens to at most 2,7" in output
    assert not list((workflow.folder / "results" / ".store" / "tokens").glob("*"))


def test_too_few_documents_to_judge_on(workflow):
    judged = {"dictionary_learning": {"documents": 1000}}
    workflow.configure({"models": {"demo": {"evaluations": judged}}})
    output = workflow.fail("results/demo/tokens/dictionary_learning/manifest.json")
    assert "in 625 documents, fewer than the 1,000 documents" in output
    assert "set that to at most 625" in output


def test_too_few_contexts_to_judge_on(workflow):
    judged = {"sae_bench_core": {"variance_batches": 1000}}
    workflow.configure({"models": {"demo": {"evaluations": judged}}})
    output = workflow.fail("results/demo/tokens/sae_bench_core/manifest.json")
    assert "contexts, fewer than the 8,008 contexts of models.demo.evaluations" in output
    assert re.search(r"to at most 1\d\d together \(of batch_contexts 8\)", output)
    assert not list((workflow.folder / "results" / ".store" / "tokens").glob("*"))


def test_an_evaluation_that_does_not_exist(workflow):
    output = workflow.fail("results/demo/L3/top_k/256/k_4/sae_bench_cor.json", "-n")
    assert "an SAE has no file 'sae_bench_cor.json'; did you mean 'sae_bench_core.json'?" in output


def test_an_ae_of_another_width_or_model_than_its_path_says(begun, tmp_path):
    """Brought in with a provenance that says what the path asks for."""
    workflow = copied(begun, tmp_path)
    workflow.succeed(f"{FOLDER}/ae.pt")
    folder = workflow.folder / FOLDER
    state = torch.load(folder / "ae.pt", weights_only=True)
    trainer = json.loads((folder / "config.json").read_text())["trainer"]
    narrower = {
        key: value[:, :128]
        if key == "decoder.weight"
        else value[:128]
        if "encoder" in key
        else value
        for key, value in state.items()
    }
    bring(folder, narrower, trainer)
    output = workflow.fail(TARGET)
    assert "k_4/ae.pt: not the SAE that its config.json describes" in output
    bring(folder, narrower, {**trainer, "dict_size": 128})
    output = workflow.fail(TARGET)
    assert "its config.json says AutoEncoderTopK of 128 latents, its path" in output
    thinner = {
        "encoder.weight": state["encoder.weight"][:, :64],
        "decoder.weight": state["decoder.weight"][:64],
        "b_dec": state["b_dec"][:64],
    }
    bring(folder, {**state, **thinner}, {**trainer, "activation_dim": 64})
    output = workflow.fail(TARGET)
    assert "demo/L3/top_k/256/k_4: of activations of width 64; the model demo has 128" in output


def bring(folder, state, trainer):
    weights = io.BytesIO()
    torch.save({key: value.clone() for key, value in state.items()}, weights)
    said = json.loads((folder / "provenance.json").read_text())
    said["ae_sha256"] = hashlib.sha256(weights.getvalue()).hexdigest()
    config = {**json.loads((folder / "config.json").read_text()), "trainer": trainer}
    for name, content in (
        ("ae.pt", weights.getvalue()),
        ("config.json", json.dumps(config).encode()),
        ("provenance.json", json.dumps(said).encode()),
    ):
        (folder / name).unlink()  # the store's file stays as it is
        (folder / name).write_bytes(content)


def test_layers_that_the_model_has_not(workflow):
    workflow.configure({"models": {"demo": {"layers": 8}}})
    output = workflow.fail(TARGET)
    assert "config key 'models.demo.layers' says 8; the model has 6: write that" in output


def test_a_column_that_the_text_has_not(workflow):
    workflow.configure({"texts": {"state-of-the-union": {"column": "body"}}})
    output = workflow.fail("results/demo/tokens/train/manifest.json")
    assert "there is no column 'body', only address, passage, text" in output


def test_a_folder_that_holds_no_model(workflow):
    (workflow.folder / "empty").mkdir()
    (workflow.folder / "empty" / "config.json").write_text("{}")
    workflow.configure({"models": {"demo": {"folder": str(workflow.folder / "empty")}}})
    output = workflow.fail("results/demo/model.json")
    assert "saemake: model 'demo' " in output
    assert "cannot be read" in output


def test_a_full_disk_is_one_line_and_nothing_half_written(workflow):
    """A real full disk: results/ is a tmpfs with room for the tokens and no SAE."""
    workflow.succeed("results/demo/tokens/train/manifest.json")
    saved = workflow.folder / "saved"
    (workflow.folder / "results").rename(saved)
    (workflow.folder / "results").mkdir()
    # Links count once, and a tmpfs needs no blocks for folders.
    blocks = {s.st_ino: s.st_blocks for p in saved.rglob("*") if p.is_file() for s in [p.stat()]}
    size_kb = sum(blocks.values()) // 2 + 200
    script = f"""
        set -eu
        mount -t tmpfs -o size={size_kb}k none results
        cp -a saved/. results/
        set +e
        "$@" > output.txt 2>&1
        echo $? > status.txt
        find results/.store/saes -type f > left.txt
        true
    """
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    command = [
        str(Path(sys.executable).with_name("snakemake")),
        "results/demo/L3/top_k/256/k_4/ae.pt",
        "--cores=1",
        f"--snakefile={PROJECT / 'Snakefile'}",
        "--configfile=small.yaml",
        "--nolock",
    ]
    subprocess.run([*namespace, *command], cwd=workflow.folder, check=True)
    output = (workflow.folder / "output.txt").read_text()
    assert (workflow.folder / "status.txt").read_text() != "0\n"
    assert "no space left on the device; free some and run the same command again" in output
    assert (workflow.folder / "left.txt").read_text() == ""
    shutil.rmtree(workflow.folder / "results")
    saved.rename(workflow.folder / "results")
    workflow.succeed("results/demo/L3/top_k/256/k_4/ae.pt")
