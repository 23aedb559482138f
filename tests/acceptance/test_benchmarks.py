"""The programs of benchmarks/ run: here on little, for what they print and not for how fast."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT

pytestmark = pytest.mark.long


def run(program, *arguments):
    """What it writes to --out, as JSON."""
    out = arguments[-1]
    done = subprocess.run(
        [sys.executable, str(PROJECT / "benchmarks" / program), *arguments],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": "tests:benchmarks/workers"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| ")
    return json.loads(Path(out).read_text())


@pytest.mark.parametrize("peer", ["dictionary_learning", "sae_lens"])
def test_steps_side_by_side(peer, tmp_path):
    small = ["--d-models", "64", "--widths", "512", "--active", "8", "--rounds", "1"]
    found = run("steps.py", "--peer", peer, *small, "--out", str(tmp_path / "out.json"))
    assert found["peer"] == peer
    for row in found["rows"]:
        # Where a penalty decides, the bias is set by a sample of the batch.
        assert row["l0"] == pytest.approx(8, rel=0.3)
        assert row["ratio"] == pytest.approx(row["peer_seconds"] / row["ours_seconds"])


def test_a_pass_on_this_device(tmp_path):
    small = ["--lms", "demo", "--width", "1024", "--batch-tokens", "512", "--warm", "1"]
    (row,) = run("passes.py", *small, "--out", str(tmp_path / "out.json"))["rows"]
    assert set(row["step_ms"]) == {"20", "40", "80", "160", "320", "640"}
    # 500M tokens for each of the six, at the rate that is printed beside it.
    hours = 6 * 500e6 / row["saes_tokens_a_second"] / 3600
    assert row["published_sweep_hours"] == pytest.approx(hours)


def test_captures_beside_a_bare_forward(tmp_path):
    small = ["--lms", "demo", "--rounds", "1"]
    found = run("captures.py", *small, "--out", str(tmp_path / "out.json"))["demo"]
    assert all(rate > 0 for rate in found.values())


def test_a_sweep_from_end_to_end(tmp_path):
    few = ["--cases", "demo", "--dtypes", "float32"]
    (row,) = run("end_to_end.py", *few, "--out", str(tmp_path / "out.json"))
    assert row["ours_tokens_a_second"] > 0
    assert row["library_tokens_a_second"] > 0


def test_memory_of_an_sae(tmp_path):
    """Weights, gradients and moments are 16 bytes a parameter; the step takes something besides."""
    small = ["--architectures", "top_k", "--dtypes", "float32", "--d-model", "512"]
    few = ["--width", "16384", "--active", "8"]
    (row,) = run("memory.py", *small, *few, "--out", str(tmp_path / "out.json"))["rows"]
    assert row["l0"] == 8
    assert 16 < row["bytes_a_parameter"] < 32


def test_core_beside_sae_bench(tmp_path):
    small = ["--shape", "pythia-70m-deduped", "--layer", "3", "--variance", "1", "--rounds", "1"]
    found = run("evaluation.py", *small, "--out", str(tmp_path / "out.json"))
    assert set(found["ours"]) == {"1", "6", "7"}
    assert len(found["sae_bench"]) == 6
    assert all(0 < one["loading"] < one["judging"] for one in found["sae_bench"])


def test_ten_minutes_on_a_gpu(tmp_path):
    done = subprocess.run(
        [sys.executable, str(PROJECT / "benchmarks" / "gpu.py"), str(tmp_path), "--small"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": "tests:benchmarks/workers"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert all(row["twice_the_same"] and row["resumed_the_same"] for row in found["smoke"]["rows"])
    assert found["demo_passes"]["all_the_same"]
    assert all(row["ratio"] > 0 for row in found["steps"]["rows"])
    assert found["passes"]["rows"][0]["tokens_a_second"] > 0
    assert "error" not in found["memory"]


def test_positions_with_massive_activations(tmp_path):
    """SmolLM2 after a block where BOS has 150 times the usual norm: it is warned of, and leaving it
    out mends it."""
    small = ["--layer", "14", "--tokens", "70000", "--architectures", "top_k"]
    ways = ["--ways", "nothing", "bos"]
    found = run("drop.py", *small, *ways, "--out", str(tmp_path / "out.json"))
    assert found["shares"]["nothing"] > 0.9
    assert found["shares"]["bos"] < 0.2
    rows = {(row["left_out"], row["sae"]): row for row in found["rows"]}
    dominated = "training: the largest 1 % of the activations have"
    for k in ("k_20", "k_80"):
        before, after = (rows[way, f"top_k {k}"] for way in ("nothing", "bos"))
        (line,) = {line for line in before["warnings"] if line.startswith(dominated)}
        assert "training.drop leaves them out (norm_over_median: 10, or bos: true" in line
        assert not any(line.startswith(dominated) for line in after["warnings"])
        assert after["recovered"] > before["recovered"] + 0.05
        assert after["explained"] > before["explained"] + 0.05
