"""A pretrained LM through the same rules: SmolLM2-135M, as config/smollm2.yaml names it."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PROJECT

pytestmark = pytest.mark.acceptance
FOLDER = "results/smollm2-135m/L8"
TABLE = f"{FOLDER}/top_k/4k/metrics.json"
FIGURE = f"{FOLDER}/figures/loss_recovered_vs_l0.pdf"


def test_smollm2_goes_the_whole_way(tmp_path):
    command = [
        str(Path(sys.executable).with_name("snakemake")),
        TABLE,
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
    rows = json.loads((tmp_path / TABLE).read_text())
    print(f"\nSmolLM2-135M: {seconds:.0f} s, largest job {peak_gib:.2f} GiB")
    for row in rows:
        print(
            f"{row['sparsity']}: L0 {row['l0']:.1f}, loss recovered {row['loss_recovered']:.4f},"
            f" CE {row['ce_clean']:.4f} / {row['ce_sae']:.4f} / {row['ce_ablated']:.4f}, variance"
            f" explained {row['frac_variance_explained']:.4f}, alive {row['frac_alive']:.3f}"
        )
    assert [row["sparsity"] for row in rows] == [f"k_{k}" for k in (20, 40, 80, 160, 320, 640)]
    recovered = [row["loss_recovered"] for row in rows]
    assert all(0 < value < 1 for value in recovered)
    assert (tmp_path / FIGURE).read_bytes().startswith(b"%PDF")
