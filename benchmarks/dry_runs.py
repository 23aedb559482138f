"""How long a dry run takes: of all 252 published SAEs with figures and checkpoints, and of one.

.venv/bin/python benchmarks/dry_runs.py        (about a minute; prints a table)
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measurements import Table, add_into, folder_of

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
    parser = argparse.ArgumentParser(description=__doc__)
    add_into(parser)
    table = Table("commands", folder_of(parser.parse_args()))
    print("| dry run | seconds, median | least |")
    print("| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in TARGETS.items():
            times = [seconds(arguments, folder) for _ in range(ROUNDS)]
            median = statistics.median(times)
            print(f"| {name} | {median:.2f} | {min(times):.2f} |", flush=True)
            table.append(
                {
                    "what": "dry run",
                    "case": name,
                    "runs": ROUNDS,
                    "seconds_median": median,
                    "seconds_least": min(times),
                    "peak_mib": None,
                }
            )


if __name__ == "__main__":
    main()
