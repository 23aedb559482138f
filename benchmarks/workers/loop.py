"""What every worker of benchmarks/steps.py does: train one SAE, and step when it is told to."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

B = 2048


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--architecture", required=True)
    parser.add_argument("--d-model", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--active", type=int, required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--state", required=True, help="initial weights and a batch; ours writes it"
    )
    return parser.parse_args()


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def serve(asked: argparse.Namespace, step: Callable[[int], Any]) -> None:
    """Run a step a line on standard input and answer with its time and the process's peak."""
    device = torch.device(asked.device)
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for number, _ in enumerate(sys.stdin):
        wait_for(device)
        start = time.perf_counter()
        found = step(number)
        wait_for(device)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated() / 2**20
        print(json.dumps({"seconds": seconds, "peak_mib": peak, "found": found}), flush=True)
