"""Run one of SAE Bench's evaluations in its own environment: `python run.py job.json setup`, then
`python run.py job.json judge`, which judges each SAE by itself.

The setup's folder appears whole or not at all. The results of SAE number i are in
`{work}/{i}.json`: the metrics, details and unstructured parts of SAE Bench's own file, or an
`error` in one line. The figures of an SAE depend on neither the other SAEs nor their order. Each
starts from the seed, and finds all else in the setup's folder, which it must not change.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    path, stage = Path(sys.argv[1]), sys.argv[2]
    prepare(json.loads(path.read_text()))
    importlib.import_module("stages").run(path, stage)


def prepare(job: dict[str, Any]) -> None:
    """Set what libraries read when they are imported."""
    os.environ |= dict.fromkeys(THREADS, str(job["threads"]))
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if job["device"] == "cpu":
        # Where there is a GPU, absorption takes another dtype on a CPU too.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


if __name__ == "__main__":
    main()
