"""One training step, here and by a peer, in turn: time, memory, matrix rate.

    .venv/bin/python benchmarks/steps.py [--peer sparsify] [--dtypes bfloat16] [--active 80] ...

Both sides start from the same weights, with the same batch of 2,048 activations; where a penalty
decides how many latents are active, the encoder's bias is set so that as many are as asked. Each
side is a process of its own in an environment of its own; they step in turn, so that a noisy
machine is noisy for both. Prints a table of medians; --out takes everything as JSON.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measurements import Table, add_into, folder_of

from saemake import architectures

PROJECT = Path(__file__).resolve().parents[1]
WORKERS = PROJECT / "benchmarks" / "workers"
PAUSE_SECONDS = 0.3
BATCH_TOKENS = 2048  # of workers/loop.py
TOP_K = ["top_k", "batch_top_k"]
DICTIONARY_LEARNINGS = [
    *("standard", "standard_new", "gated", "p_anneal", "jump_relu"),
    *("matryoshka_batch_top_k", *TOP_K),
]


@dataclasses.dataclass(frozen=True)
class Peer:
    """Who steps beside us: the environment and the worker, and which architectures it has."""

    environment: str
    worker: str
    architectures: list[str]

    @property
    def python(self) -> Path:
        return PROJECT / self.environment / "bin" / "python"


PEERS = {
    "dictionary_learning": Peer(
        ".venv-dictionary-learning", "with_dictionary_learning.py", DICTIONARY_LEARNINGS
    ),
    "sae_lens": Peer(".venv-saebench", "with_sae_lens.py", TOP_K),
    "sparsify": Peer(".venv-sparsify", "with_sparsify.py", TOP_K[:1]),
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=PEERS, default="dictionary_learning")
    parser.add_argument("--architectures", nargs="+", choices=architectures.names())
    parser.add_argument("--d-models", nargs="+", type=int, default=[512])
    parser.add_argument("--widths", nargs="+", type=int, default=[16384])
    parser.add_argument("--active", nargs="+", type=int, default=[80], help="k, or L0")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    add_into(parser)
    return parser.parse_args()


class Worker:
    """A process that steps when it is told to."""

    def __init__(self, python: Path | str, script: str, case: list[str]) -> None:
        threads = case[case.index("--threads") + 1]
        self.process = subprocess.Popen(
            [str(python), str(WORKERS / script), *case],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )
        self.read()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # a peer's imports may say other things
                return json.loads(line)
        raise SystemExit(f"{self.process.args}: ended with {self.process.wait()}")

    def step(self) -> dict[str, Any]:
        # The other side's threads may still be waiting actively for work.
        time.sleep(PAUSE_SECONDS)
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(
    asked: argparse.Namespace, name: str, d_model: int, width: int, active: int, dtype: str
) -> dict[str, Any]:
    """One case: medians over the rounds, in seconds and MiB."""
    with tempfile.TemporaryDirectory() as folder:
        case = [
            *("--architecture", name),
            *("--d-model", str(d_model)),
            *("--width", str(width)),
            *("--active", str(active)),
            *("--dtype", dtype),
            *("--threads", str(asked.threads)),
            *("--device", asked.device),
            *("--state", f"{folder}/state.pt"),
        ]
        ours = Worker(sys.executable, "with_saemake.py", case)
        peer = PEERS[asked.peer]
        theirs = Worker(peer.python, peer.worker, case)
        pairs = [(ours.step(), theirs.step()) for _ in range(asked.rounds)]
        for worker in (ours, theirs):
            worker.end()
    seconds = [
        statistics.median(step["seconds"] for step in side) for side in zip(*pairs, strict=True)
    ]
    last, other = pairs[-1]
    product = last["found"]["product_seconds"]
    return {
        "architecture": name,
        "d_model": d_model,
        "width": width,
        "active": active,
        "l0": last["found"]["l0"],
        "dtype": dtype,
        "ours_seconds": seconds[0],
        "peer_seconds": seconds[1],
        "ratio": seconds[1] / seconds[0],
        "ours_peak_mib": last["peak_mib"],
        "peer_peak_mib": other["peak_mib"],
        "gflops": 2 * BATCH_TOKENS * d_model * width / product / 1e9,
        "of_one_product": product / seconds[0],
    }


def table_row(row: dict[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    """A case's row of docs/measurements/steps.csv."""
    same = ("architecture", "dtype", "d_model", "width", "active", "l0", "ratio")
    return {
        **{key: row[key] for key in same},
        "batch_tokens": BATCH_TOKENS,
        "threads": asked.threads,
        "rounds": asked.rounds,
        "peer": asked.peer,
        "ours_ms": 1000 * row["ours_seconds"],
        "peer_ms": 1000 * row["peer_seconds"],
        "ours_peak_mib": row["ours_peak_mib"],
        "peer_peak_mib": row["peer_peak_mib"],
        "one_product_share": row["of_one_product"],
        "dead_latents_share": 0.0,
        "kernels": None,
        "synchronisations": None,
    }


def main() -> None:
    asked = options()
    peer = asked.peer
    table = Table("steps", folder_of(asked), asked.device)
    print(f"| | | L0 | ours ms | {peer} ms | ratio | ours MiB | {peer} MiB | one product |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    wanted = asked.architectures or PEERS[peer].architectures
    for name in set(wanted) - set(PEERS[peer].architectures):
        raise SystemExit(f"{peer} has no {name}: it has {', '.join(PEERS[peer].architectures)}")
    if not PEERS[peer].python.exists():
        raise SystemExit(f"{PEERS[peer].python}: not there; type `make bench`, which sets it up")
    rows = []
    cases = itertools.product(asked.dtypes, asked.d_models, asked.widths, asked.active)
    for dtype, d_model, width, active in cases:
        here = []
        for name in wanted:
            row = measure(asked, name, d_model, width, active, dtype)
            here.append(row)
            table.append(table_row(row, asked))
            print(
                f"| {name} | {dtype}, {d_model} x {width}, {active} | {row['l0']:.0f}"
                f" | {1000 * row['ours_seconds']:.0f} | {1000 * row['peer_seconds']:.0f}"
                f" | {row['ratio']:.1f} | {row['ours_peak_mib']:.0f}"
                f" | {row['peer_peak_mib']:.0f} | {row['of_one_product']:.0%} |",
                flush=True,
            )
        mean = math.exp(statistics.mean(math.log(row["ratio"]) for row in here))
        print(
            f"| geometric mean | {dtype}, {d_model} x {width}, {active} | | | | {mean:.2f} | | | |"
        )
        rows += here
    if asked.out:
        about = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "peer": peer,
            "threads": asked.threads,
            "device": asked.device,
        }
        asked.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
