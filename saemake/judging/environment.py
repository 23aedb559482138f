"""The environment that SAE Bench's own code runs in: `make sae-bench` makes it. Neither this
package nor Snakemake's python imports sae_bench."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from saemake.base.errors import SaemakeError
from saemake.paths.names import STORE
from saemake.recipes.judging import SAE_BENCH_PINS

# Names the python of another environment with the same pins, such as a conda environment.
PYTHON = "SAEMAKE_SAE_BENCH_PYTHON"
FOLDER, MADE = ".venv-saebench", "peers"


def python(root: Path) -> Path:
    """The environment's python. Makes the environment first where it is missing or older than its
    pins, which needs the package index.

    Raises SaemakeError if it cannot be made.
    """
    if named := os.environ.get(PYTHON):
        if not Path(named).is_file():
            raise SaemakeError(f"{PYTHON} names {named}, where no python is")
        return Path(named)
    made, pins = root / FOLDER / MADE, root / SAE_BENCH_PINS
    locks = STORE / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / "sae_bench_environment.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or made.stat().st_mtime < pins.stat().st_mtime:
            _make(root)
    return root / FOLDER / "bin" / "python"


def _make(root: Path) -> None:
    print(f"saemake: making SAE Bench's environment, {FOLDER}; it takes minutes", flush=True)
    make = shutil.which("make")
    if make is None:
        raise SaemakeError("SAE Bench's environment is made by `make sae-bench`: install make")
    done = subprocess.run(
        [make, "--directory", str(root), "sae-bench", f"PYTHON={sys.executable}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise SaemakeError(
            f"SAE Bench's environment cannot be made ({last[:160]}); type `make sae-bench` where"
            " there is a package index"
        )
