"""Bad input: one clear line, status not 0, nothing lost and no file under a final name."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT

TARGET = "results/demo/L3/top_k/256/metrics.json"


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("results/dmeo/L3/top_k/256/metrics.json", "no model 'dmeo' in the config; did you mean"),
        ("results/demo/L3/topk/256/metrics.json", "did you mean 'top_k'?"),
        ("results/demo/L3/top_k/257/metrics.json", "no width '257' in the config; did you mean"),
        ("results/demo/L3/top_k/256/k_5/ae.pt", "no sparsity 'k_5' in the config; did you mean"),
        ("results/demo/L3/figures/loss_vs_l0.pdf", "did you mean 'loss_recovered_vs_l0'?"),
        ("results/demo/L7/top_k/256/metrics.json", "demo has layers L0 to L5, not L7"),
    ],
)
def test_a_wrong_path(workflow, target, line):
    output = workflow.fail(target)
    assert f"{target}: " in output
    assert line in output
    assert not (workflow.folder / "results").exists()


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
    workflow.configure({"models": {"demo": {"evaluation_documents": 1000}}})
    output = workflow.fail("results/demo/tokens/evaluation/manifest.json")
    assert "in 625 documents, fewer than the 1,000 documents" in output


def test_layers_that_the_model_has_not(workflow):
    workflow.configure({"models": {"demo": {"layers": 8}}})
    output = workflow.fail(TARGET)
    assert "config key 'models.demo.layers' says 8; the model has 6: write that" in output


def test_a_column_that_the_text_has_not(workflow):
    workflow.configure({"texts": {"state-of-the-union": {"column": "body"}}})
    output = workflow.fail("results/demo/tokens/train/manifest.json")
    assert "no text in column 'body', only address, passage, text" in output


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
    size_kb = sum(path.stat().st_blocks for path in saved.rglob("*")) // 2 + 200
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
