"""Ctrl-C and SIGTERM as a flag, which a job reads between its steps."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType

WORDS = "interrupted; the same command goes on"
MESSAGE = f"saemake: {WORDS}"


class Interrupts:
    """Records the first signal in `requested`. A second signal raises KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self.requested = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
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
