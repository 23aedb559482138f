"""What only a GPU can show. Skipped where there is none; benchmarks/gpu.py runs the same code there
and measures more."""

import importlib
import math
import sys
import time

import pytest
import torch
from conftest import PROJECT

from saemake import architectures

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

RECIPES = ("saebench", "dictionary_learning")
# The largest relative difference of a loss after 12 steps from the CPU's.
TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-3}


@pytest.fixture(scope="module", autouse=True)
def _programs():
    paths = [str(PROJECT / "benchmarks"), str(PROJECT / "benchmarks" / "workers")]
    sys.path[:0] = paths
    yield
    for path in paths:
        sys.path.remove(path)


@pytest.fixture
def run(tmp_path):
    from saemake.base import devices

    module = importlib.import_module("on_gpu.run")
    return module.Run(devices.choose(4), tmp_path, False, time.monotonic() + math.inf)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", architectures.names())
def test_steps_have_the_cpus_loss_and_the_same_bytes_again_and_resumed(name, recipe, dtype, run):
    same_bytes = importlib.import_module("on_gpu.same_bytes")
    row = same_bytes.smoke_case(name, recipe, dtype, same_bytes.some_batches(12), run.device)
    assert abs(row["loss_relative"]) < TOLERANCES[dtype]
    assert row["twice_the_same"]
    assert row["resumed_the_same"]


@pytest.mark.parametrize("name", architectures.names())
def test_a_replayed_step_gives_the_bytes_of_a_step(name, run):
    row = importlib.import_module("on_gpu.graphs").graph_case(name, 512, 4096, run)
    assert row["same_bytes"]


@pytest.mark.parametrize("drop", [None, {"norm_over_median": 1.5}], ids=["whole", "left out"])
def test_a_pass_gives_the_same_bytes_again_and_after_a_kill(drop, run):
    found = importlib.import_module("on_gpu.same_bytes").passes_of_demo(run, drop)
    assert found["all_the_same"], found["same"]
    assert found["loaded_apart"] < 1e-5


@pytest.mark.parametrize("drop", [None, {"norm_over_median": 1.5}], ids=["whole", "left out"])
def test_evaluations_have_the_cpus_figures(drop, run):
    found = importlib.import_module("on_gpu.same_bytes").evaluations_of_demo(run, drop)
    for row in found.values():
        assert row["twice_the_same"]
        assert max(row["largest_relative"].values()) < 1e-4
