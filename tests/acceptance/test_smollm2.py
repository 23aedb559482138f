"""A pretrained LM through the same rules: SmolLM2-135M, as config/smollm2.yaml names it, with all
eight architectures on one frontier."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PROJECT

from saemake import architectures

pytestmark = pytest.mark.acceptance
FOLDER = "results/smollm2-135m/L8"
FIGURE = f"{FOLDER}/figures/loss_recovered_vs_l0.pdf"


def test_smollm2_goes_the_whole_way(tmp_path):
    command = [
        str(Path(sys.executable).with_name("snakemake")),
        FIGURE,
        "--cores=2",
        f"--snakefile={PROJECT / 'Snakefile'}",
        f"--workflow-profile={PROJECT / 'profiles' / 'default'}",
        f"--configfile={PROJECT / 'config' / 'smollm2.yaml'}",
    ]
    started = time.monotonic()
    subprocess.run(command, cwd=tmp_path, check=True)
    seconds = time.monotonic() - started
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"\nSmolLM2-135M: {seconds:.0f} s, largest job {peak_gib:.2f} GiB")
    for name in architectures.names():
        rows = json.loads((tmp_path / FOLDER / name / "2k" / "metrics.json").read_text())
        for row in rows:
            print(
                f"| {name}/{row['sparsity']} | {row['l0']:.1f} | {row['loss_recovered']:.4f} |"
                f" {row['frac_variance_explained']:.4f} | {row['frac_alive']:.3f} |"
                f"{' warned' if row['warnings'] else ''}"
            )
        assert len(rows) == 6
        assert all(row["ce_clean"] < row["ce_ablated"] for row in rows)
        ordered = sorted(rows, key=lambda row: row["l0"])
        assert ordered[0]["loss_recovered"] < ordered[-1]["loss_recovered"]
        target_l0 = architectures.get(name).target_l0
        for row in rows:
            asked = target_l0(float(row["sparsity"].split("_")[-1]))
            missed = asked is not None and abs(row["l0"] / asked - 1) > 0.15
            assert bool(row["warnings"]) == missed
    assert (tmp_path / FIGURE).read_bytes().startswith(b"%PDF")
