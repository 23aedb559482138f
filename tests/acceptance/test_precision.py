"""bfloat16 autocast trains as float32 does: on the demo, final losses are within 2 %."""

import csv

import peers
import pytest
from conftest import DEMO_IN_BFLOAT16, Workflow, merged

from saemake import architectures
from saemake.paths.names import sparsity_name

pytestmark = pytest.mark.long
# One of each sweep of the demo.
SPARSITY = {
    name: 0.1 if architectures.get(name).sparsity == "penalty" else 8 for name in peers.SHARED
}


def final_loss(workflow: Workflow, name: str) -> float:
    folder = workflow.folder / "results/demo/L3" / name / "1k" / sparsity_name(name, SPARSITY[name])
    with (folder / "training.csv").open() as rows:
        *_, last = csv.DictReader(rows)
    assert int(last["step"]) == 975
    return float(last["loss"])


def test_bfloat16_ends_within_two_percent_of_float32(demo, tmp_path):
    bfloat16 = Workflow(tmp_path)
    swept = {name: {"sweep": [value]} for name, value in SPARSITY.items()}
    bfloat16.write(merged({"models": {"demo": {"architectures": swept}}}, DEMO_IN_BFLOAT16))
    targets = [
        f"results/demo/L3/{name}/1k/{sparsity_name(name, value)}/ae.pt"
        for name, value in SPARSITY.items()
    ]
    bfloat16.succeed(*targets, "--cores", "2")
    print()
    for name in SPARSITY:
        exact, rounded = final_loss(demo, name), final_loss(bfloat16, name)
        print(f"| {name} | {exact:.5f} | {rounded:.5f} | {rounded / exact - 1:+.2%} |")
        assert abs(rounded / exact - 1) < 0.02, name
