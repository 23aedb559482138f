"""How long a dry run takes: of all 252 published SAEs with figures and checkpoints, and of one.

.venv/bin/python benchmarks/dry_runs.py        (about a minute; prints a table)
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
SNAKEMAKE = Path(sys.executable).parent / "snakemake"
TARGETS = {
    "snakemake --version": ["--version"],
    "one target": ["results/gemma-2-2b/L12/top_k/16k/metrics.json", "-n"],
    "all 252": ["-n", "--configfile", str(PROJECT / "config" / "saebench.yaml")],
}
ROUNDS = 5


def seconds(arguments: list[str], folder: str) -> float:
    start = time.perf_counter()
    command = [SNAKEMAKE, "-s", PROJECT / "Snakefile", "--cores", "1", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    print("| dry run | seconds, median | least |")
    print("| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in TARGETS.items():
            found = [seconds(arguments, folder) for _ in range(ROUNDS)]
            print(f"| {name} | {statistics.median(found):.2f} | {min(found):.2f} |", flush=True)


if __name__ == "__main__":
    main()
