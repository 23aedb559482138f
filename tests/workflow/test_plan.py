"""What a dry run says, for published SAEs too, without a network or a GPU."""

import re
import subprocess
import sys
from pathlib import Path

from conftest import LAYER, PROJECT


def test_a_published_sweep_is_planned_with_its_tokens_and_steps(workflow):
    output = workflow.succeed(
        "results/gemma-2-2b/L12/top_k/16k/metrics.json", "--resources", "gpu=1", "-n"
    )
    counts = dict(re.findall(r"^(\w+) +(\d+)$", output, flags=re.MULTILINE))
    assert counts == {
        "model": "1",
        "tokens": "3",
        "baselines": "1",
        "train__gemma_2_2b__top_k": "1",
        "evaluate__gemma_2_2b__top_k": "2",
        "evaluate_baselines": "2",
        "join_baselines": "1",
        "join__gemma_2_2b__top_k": "1",
        "metrics": "1",
        "total": "13",
    }
    assert (
        "train 6 SAEs gemma-2-2b/L12/top_k/16k (k_20, k_40, k_80, k_160, k_320, k_640):"
        " 499,998,720 tokens in 244,140 steps of 2,048"
    ) in output
    assert "tokenise 500,203,520 tokens of pile (train) for gemma-2-2b" in output
    assert "evaluate gemma-2-2b/L12/top_k/16k by dictionary_learning on 200 documents" in output
    assert "evaluate gemma-2-2b/L12/top_k/16k by sae_bench_core on 35,200 contexts of 128" in output


def test_no_line_on_the_screen_lists_files(fresh):
    jobs = re.compile(r"^(?:[\d:]+ )?Job \d+: (.*)$", flags=re.MULTILINE)
    planned = fresh.succeed("-n")
    assert {"fetch and check the model demo", "finish demo"} < set(jobs.findall(planned))
    assert "results/" not in planned
    ran = fresh.succeed("results/demo/model.json")
    assert jobs.findall(ran) == ["fetch and check the model demo"]
    # But for the target that was asked for.
    assert "results/" not in re.sub(
        r"^Buil(ding|t) results/demo/model\.json: ", "", ran, flags=re.M
    )
    # The one way back to the reasons, which name the files.
    said = fresh.succeed(f"{LAYER}/baselines/pca.safetensors", "-n", "--quiet", "host")
    assert f"Missing output files: {LAYER}/baselines/pca.safetensors" in said


def test_the_published_command_works_from_the_project_itself():
    """As README types it, with the project's own config and profile, and no option besides."""
    target = "results/pythia-160m-deduped/L8/standard_new/65k/penalty_0.06/ae.pt"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("snakemake")), target, "-n", "--quiet", "host"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "penalty_0.012, penalty_0.015, penalty_0.02" in done.stdout + done.stderr
