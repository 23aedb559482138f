"""The plan's memory against what training jobs took, as `saemake plan` says it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, SMALL, Workflow

pytestmark = pytest.mark.acceptance

# Runs a command, then says the largest resident set of any process under it, in KiB.
WATCHED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""
# Six SAEs a pass: the sweeps of the project's own config.
SIX = {
    **SMALL["models"]["demo"],
    "architectures": {
        name: {key: value for key, value in own.items() if key != "sweep"}
        for name, own in SMALL["models"]["demo"]["architectures"].items()
    },
    "suite": {"widths": ["16k"]},
}


@pytest.fixture(scope="module")
def tokenised(tmp_path_factory):
    made = Workflow(tmp_path_factory.mktemp("planned"))
    made.write({"models": {"demo": SIX}})
    made.succeed("results/demo/tokens/train/manifest.json")
    return made


def planned_bytes(folder: Path, config_file: str, target: str) -> int:
    asked = ["plan", "--json", target, "--configfile", config_file]
    done = subprocess.run(
        [sys.executable, "-m", "saemake", *asked],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**Workflow(folder).environment(), "PYTHONPATH": str(PROJECT)},
    )
    return json.loads(done.stdout)["largest_job"]["on_cpu"]["bytes"]


# CI has time for those that train fast.
SAES = [
    "top_k/16k/k_8",
    "batch_top_k/16k/k_8",
    *(
        pytest.param(sae, marks=pytest.mark.long)
        for sae in (
            "matryoshka_batch_top_k/16k/k_8",
            "jump_relu/16k/l0_8",
            "gated/16k/penalty_0.1",
            "standard/16k/penalty_0.1",
            "standard_new/16k/penalty_0.1",
            "p_anneal/16k/penalty_0.1",
        )
    ),
]


@pytest.mark.parametrize("sae", SAES)
def test_a_training_job_takes_the_memory_that_was_planned(tokenised, sae):
    target = f"results/demo/L3/{sae}/ae.pt"
    planned = planned_bytes(tokenised.folder, tokenised.config_file, target)
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *tokenised.command(target)],
        cwd=tokenised.folder,
        env=tokenised.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = int(done.stdout) * 1024
    print(f"\n{sae}: planned {planned / 2**20:,.0f} MiB, took {measured / 2**20:,.0f} MiB")
    assert planned == pytest.approx(measured, rel=0.15)
