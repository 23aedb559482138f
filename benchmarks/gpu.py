"""Ten minutes on a GPU: does saemake run there, with the same bytes each time, how fast, how large.

    PYTHONPATH=$PWD:tests:benchmarks/workers python3 benchmarks/gpu.py OUT [--small] [--seconds 330]

One process, in stages. Each stage prints its rows, adds itself to OUT/gpu.json and appends its rows
to the tables of --into at once. A stage that fails leaves its traceback there, and the next one
runs. It needs torch, transformers, nnsight, pydantic, pandas and the peers' packages, but neither
network nor `datasets` nor pyarrow. `--small` is for trying it on a CPU: no table gets a row.
"""

import argparse
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measurements import COLUMNS, FOLDER, Table, add_into
from on_gpu import graphs, judging, kernel_times, passes, same_bytes, steps
from on_gpu.run import Run
from on_gpu.table_rows import rows_of

from saemake.base import devices

STAGES: dict[str, Callable[[Run], dict[str, Any]]] = {
    "rates": passes.rates,
    "smoke": same_bytes.smoke,
    "demo_passes": same_bytes.passes_of_demo,
    "demo_evaluations": same_bytes.evaluations_of_demo,
    "left_out": same_bytes.left_out,
    "kernels": kernel_times.kernel_times,
    "steps": steps.steps,
    "passes": passes.passes,
    "memory": passes.memory,
    "graphs": graphs.graphs,
    "snapshots": judging.snapshots,
    "evaluations": judging.evaluations,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=330)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    add_into(parser)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    device = devices.choose(4)
    into = asked.into or FOLDER
    tables = {table: Table(table, into, device.type) for table in COLUMNS}
    run = Run(device, asked.out, asked.small, time.monotonic() + asked.seconds)
    results: dict[str, Any] = {}
    about = {"device": devices.describe(device), "torch": torch.__version__}
    print(json.dumps(about), flush=True)
    for name in asked.stages:
        if run.seconds_left < 10:
            print(f"{name}: no time left", flush=True)
            continue
        start = time.monotonic()
        try:
            found = STAGES[name](run)
        except Exception:
            found = {"error": traceback.format_exc()}
            print(found["error"], flush=True)
        run.forget()
        results[name] = {**found, "stage_seconds": round(time.monotonic() - start, 1)}
        content = json.dumps({**about, **results}, indent=1, default=str)
        (asked.out / "gpu.json").write_text(content + "\n")
        for table, rows in rows_of(name, found).items():
            for row in rows if not asked.small else ():
                tables[table].append(row)
        short = {k: v for k, v in found.items() if k not in ("rows", "sha256", "error")}
        print(f"== {name}: {json.dumps(short, default=str)}", flush=True)


if __name__ == "__main__":
    main()
