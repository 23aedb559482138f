"""How training's time grows with tokens, SAEs and width, over a range of eight in each.

    PYTHONPATH=tests .venv/bin/python benchmarks/growth.py        (about ten minutes)

Whole train jobs of the snakemake command on the demo's LM, BatchTopK with k 16 and on: their own
wall time, which provenance.json records, buffer and all. Least of `--rounds`.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

from conftest import DEMO_LM, Workflow
from lms import LMS
from measurements import Table, add_into, folder_of

LM = LMS["demo"]


@dataclasses.dataclass(frozen=True)
class Job:
    """A sweep of SAEs with k 16, 17 and so on."""

    tokens: int = 65_536
    saes: int = 2
    width: int = 1024


BASE = Job()
SERIES = {
    "tokens": [dataclasses.replace(BASE, tokens=BASE.tokens * factor) for factor in (1, 2, 4, 8)],
    "SAEs": [dataclasses.replace(BASE, saes=count) for count in (1, 2, 4, 8)],
    "width": [dataclasses.replace(BASE, width=BASE.width * factor) for factor in (1, 2, 4, 8)],
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    add_into(parser)
    return parser.parse_args()


def seconds(job: Job, threads: int) -> float:
    """Of the pass."""
    ks = [16 + number for number in range(job.saes)]
    model = LM.configured(
        DEMO_LM,
        train_tokens=job.tokens,
        training={
            "batch_tokens": 512,
            "norm_batches": 1,
            "warmup_steps": 10,
            "cpu_threads": threads,
        },
        architectures={"batch_top_k": {"sweep": ks, "threshold_start_step": 10}},
        suite={"layers": [LM.layer], "architectures": ["batch_top_k"], "widths": ["asked"]},
    )
    with tempfile.TemporaryDirectory() as folder:
        workflow = Workflow(Path(folder))
        workflow.write({"models": {"lm": model}, "widths": {"asked": job.width}})
        places = [f"results/lm/L{LM.layer}/batch_top_k/asked/k_{k}" for k in ks]
        workflow.succeed(*(f"{place}/ae.pt" for place in places), OMP_NUM_THREADS=str(threads))
        return json.loads(workflow.read(f"{places[0]}/provenance.json"))["pass_wall_time_s"]


def main() -> None:
    asked = options()
    table = Table("growth", folder_of(asked))
    found: dict[str, list[float]] = {}
    for name, jobs in SERIES.items():
        found[name] = [
            min(seconds(job, asked.threads) for _ in range(asked.rounds)) for job in jobs
        ]
        asked_for = [getattr(job, name.lower()) for job in jobs]
        print(f"| {name} | " + " | ".join(f"{value:,}" for value in asked_for) + " |", flush=True)
        print("| seconds | " + " | ".join(f"{value:.1f}" for value in found[name]) + " |")
        for job, least in zip(jobs, found[name], strict=True):
            run = {"varied": name, "threads": asked.threads, "runs": asked.rounds}
            table.append({**run, **dataclasses.asdict(job), "seconds_least": least})
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
