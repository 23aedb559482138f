"""Run one of SAE Bench's evaluations in its own environment: `python run.py job.json setup`, then
`python run.py job.json judge`, which judges each SAE by itself.

The setup's folder appears whole or not at all. The results of SAE number i are in
`{work}/{i}.json`: the metrics, details and unstructured parts of SAE Bench's own file; `undefined`,
why it has no figures by this evaluation; or an `error` in one line. A line `judged {i}` says that
it is there. The figures of an SAE depend on neither the other SAEs nor their order. Each
starts from the seed, and finds all else in the setup's folder, which it must not change.
"""

import ctypes
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    _end_with_parent()
    path, stage = Path(sys.argv[1]), sys.argv[2]
    prepare(json.loads(path.read_text()))
    importlib.import_module("stages").run(path, stage)


def _end_with_parent() -> None:
    """Get SIGTERM when the job that started this is killed (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def prepare(job: dict[str, Any]) -> None:
    """Set what libraries read when they are imported."""
    os.environ |= dict.fromkeys(THREADS, str(job["threads"]))
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if job["device"] == "cpu":
        # Where there is a GPU, absorption takes another dtype on a CPU too.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


if __name__ == "__main__":
    main()
