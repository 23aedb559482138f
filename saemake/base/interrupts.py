"""Ctrl-C and SIGTERM as a flag, which a job reads between its steps."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType

WORDS = "interrupted; the same command goes on"
MESSAGE = f"saemake: {WORDS}"
# In the environment of a job that a run has submitted to Slurm: its number there.
SLURM_JOB = "SAEMAKE_SLURM_JOB"
STOPPED = "was told to stop"


class Interrupts:
    """Records the first signal in `requested`. A second signal raises KeyboardInterrupt at once;
    not in a job of Slurm's, whose processes may get one from each of several senders. There SIGKILL
    comes when no time is left."""

    def __init__(self) -> None:
        self.requested = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and SLURM_JOB not in os.environ:
            raise KeyboardInterrupt
        self.requested = True


@contextlib.contextmanager
def watched() -> Iterator[Interrupts]:
    """Turn Ctrl-C and SIGTERM into a flag inside the block."""
    interrupts = Interrupts()
    before = {n: signal.signal(n, interrupts._handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell_jobs_of_slurm() -> None:
    """Say to the processes that this one starts that a run has submitted them to Slurm, if so.
    Those of a run that is itself in an allocation are not: a user waits for them."""
    if (job := os.environ.get("SLURM_JOB_ID")) is not None:
        os.environ[SLURM_JOB] = job


def slurm_words() -> str | None:
    """The last words of a process that Slurm stops; None outside Slurm."""
    job = os.environ.get(SLURM_JOB)
    if job is None:
        return None
    why = "its time is nearly up, or it was cancelled or preempted"
    return f"Slurm's job {job} {STOPPED}: {why}; the next attempt goes on from what is saved"


def raised_in_slurm() -> None:
    """From now on SIGTERM raises KeyboardInterrupt in a job of Slurm's, which has words for it.
    Elsewhere it ends the process as before."""
    if SLURM_JOB in os.environ:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def say_in_one_line() -> None:
    """From now on an uncaught Ctrl-C ends the process with one line instead of a traceback. It can
    come while modules are imported, while the Snakefile is read, or while Snakemake plans jobs."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print(MESSAGE, file=sys.stderr, flush=True)
        else:
            before(kind, error, where)

    sys.excepthook = hook
