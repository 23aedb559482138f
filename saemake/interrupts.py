"""Ctrl-C and SIGTERM, as a flag that work can look at between its steps."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


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
