"""Ctrl-C and SIGTERM, as a flag that work can look at between its steps."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType

SAID = "saemake: interrupted; the same command goes on"


class Interrupts:
    """Whether one was asked for. The second asks at once: it raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextlib.contextmanager
def watched() -> Iterator[Interrupts]:
    """Turn both signals into a flag inside the block."""
    interrupts = Interrupts()
    before = {n: signal.signal(n, interrupts._handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_in_one_line() -> None:
    """From now on a Ctrl-C that nobody catches ends the process with one line, not a traceback:
    while modules are imported, the Snakefile is read, or Snakemake looks at what there is to do."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print(SAID, file=sys.stderr, flush=True)
        else:
            before(kind, error, where)

    sys.excepthook = hook
