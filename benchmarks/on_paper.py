"""The published suite on one and on many GPUs, on paper: hours by `saemake plan`, its jobs given to
GPUs longest first.

    .venv/bin/python benchmarks/on_paper.py        (two minutes; runs nothing)

What trains ends before what is judged begins, which is a little later than in a run.
"""

import argparse
import heapq
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

SHARE = ("sparsities", "widths", "architectures", "layers", "seeds")
# What shares a run of the LM, and the GiB that a pass may take.
WAYS = (("sparsities",), ("sparsities", "widths"), SHARE)
GIB = 75


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="h100")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--configfile", type=Path, default=Path("config/saebench.yaml"))
    return parser.parse_args()


def planned(asked: argparse.Namespace, share: Iterable[str]) -> dict[str, Any]:
    """What `saemake plan` counts."""
    memory = None if tuple(share) == ("sparsities",) else GIB
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
        yaml.safe_dump({"passes": {"share": list(share), "memory_gib": memory}}, config)
        config.flush()
        command = [sys.executable, "-m", "saemake", "plan", "--json", "--device", asked.device]
        command += ["--configfile", str(asked.configfile), config.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    plan: dict[str, Any] = json.loads(done.stdout)
    return plan


def longest_first(hours: Iterable[float], gpus: int) -> float:
    """When the last GPU is free, if each takes the longest job that is left."""
    free = [0.0] * gpus
    for each in sorted(hours, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def main() -> int:
    asked = options()
    print("| shares | passes | LM, EFLOP | GPU hours | longest pass, h |", end="")
    print("".join(f" {gpus} GPUs, h |" for gpus in asked.gpus))
    for share in WAYS:
        plan = planned(asked, share)
        training = [job["hours"] for job in plan["jobs"] if job["stage"] == "training"]
        judging = [job["hours"] for job in plan["jobs"] if job["stage"] != "training"]
        lm = sum(stage["lm"] for stage in plan["flops"].values()) / 1e18
        cells = ["+".join(share), len(training), f"{lm:.1f}", f"{sum(training + judging):.0f}"]
        cells += [f"{max(training):.1f}"]
        for gpus in asked.gpus:
            ends = longest_first(training, gpus) + longest_first(judging, gpus)
            cells.append(f"{ends:.1f}")
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
