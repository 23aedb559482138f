"""Positions that are left out, through the rules: said wherever an SAE is described."""

import json
import os
import subprocess
import sys

import pytest
from conftest import PROJECT

pytestmark = pytest.mark.acceptance

SAE = "demo/L3/top_k/256/k_4"
FIGURES = f"results/{SAE}/dictionary_learning.json"
DROP = {"bos": True, "norm_over_median": 5}


def configure(workflow, **evaluation):
    demo = {
        "prepend_bos": True,
        "training": {"drop": DROP},
        "evaluations": {"dictionary_learning": evaluation},
    }
    workflow.configure({"models": {"demo": demo}})


def test_what_is_left_out_is_said_everywhere(workflow):
    configure(workflow)
    planned = subprocess.run(
        [sys.executable, "-m", "saemake", "plan", FIGURES, "--configfile", "small.yaml"],
        cwd=workflow.folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "not trained on        demo: bos, norms over 5 x the median\n" in planned
    output = workflow.succeed(FIGURES, f"saelens/{SAE}/cfg.json")
    # Before it trains; its rows say where the figures are of what was left out.
    assert "steps of 512, without bos, norms over 5 x the median" in output
    rows = json.loads(workflow.read(FIGURES))
    assert all("left out of training" in row["warnings"][0] for row in rows)
    assert all("drop" not in row["evaluations"]["dictionary_learning"] for row in rows)
    config = json.loads(workflow.read(f"results/{SAE}/config.json"))
    assert config["buffer"]["drop"]["norm_over_median"] == 5
    assert json.loads(workflow.read(f"results/{SAE}/provenance.json"))["dropped_ids"] == [0]
    cfg = json.loads(workflow.read(f"saelens/{SAE}/cfg.json"))
    assert cfg["metadata"]["exclude_special_tokens"] == [0]

    # The same SAEs, judged where they were trained.
    configure(workflow, drop=DROP)
    output = workflow.succeed(FIGURES)
    assert "by dictionary_learning on 10 documents, without bos, norms over 5 x the" in output
    again = json.loads(workflow.read(FIGURES))
    for row, before in zip(again, rows, strict=True):
        assert not any("left out of training" in line for line in row["warnings"])
        figures, found = before["dictionary_learning"], row["dictionary_learning"]
        assert found["loss_original"] == figures["loss_original"]
        assert found["loss_zero"] == figures["loss_zero"]
        assert found["loss_reconstructed"] != figures["loss_reconstructed"]
        said = row["evaluations"]["dictionary_learning"]["drop"]
        assert said == {**DROP, "special": False}
