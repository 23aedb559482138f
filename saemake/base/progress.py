"""How far a piece of work is: the one place where code reports it.

A job tells it by a small file, which the screen and `saemake status` read. Where no
screen shows it, it is a bar on stderr, which refreshes often on a terminal and rarely in a file.
"""

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from saemake.base.telling import Told

# The environment variable that says that a screen shows the progress of jobs.
SHOWN = "SAEMAKE_SCREEN"
KIND = "job"
TELL_INTERVAL_S = 0.5
# Speed is that of the last seconds.
RATE_OVER_S = 30.0
TERMINAL_INTERVAL_S = 0.5
FILE_INTERVAL_S = 10.0

# Figures as they are so far, of one or several SAEs: L0, the fraction of variance explained, the
# fraction of loss recovered.
L0, EXPLAINED, RECOVERED = "l0", "explained", "recovered"
Figures = Mapping[str, Sequence[float]]


class Job:
    """The job that this process is, as it tells of itself."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.told = Told(folder, KIND)
        self.content = {"pid": os.getpid(), "started": time.time(), **about}

    def tell(self, more: Mapping[str, Any]) -> bool:
        return self.told.write({**self.content, **more})


_job: Job | None = None


@contextlib.contextmanager
def telling(folder: Path, about: Mapping[str, Any]) -> Iterator[None]:
    """Tell what this process does by a file in a folder, which is removed at the block's end."""
    global _job
    _job = Job(folder, about)
    _job.tell({})
    try:
        yield
    finally:
        job, _job = _job, None
        if "fault" in job.content:
            job.told.leave()
        else:
            job.told.close()


def failed(words: str) -> bool:
    """Tell why the job fails. Whether a screen says it."""
    if _job is None:
        return False
    _job.content["fault"] = words
    return _job.tell({}) and bool(os.environ.get(SHOWN))


def bar(
    total: int,
    label: str,
    unit: str,
    initial: int = 0,
    figures: Callable[[], Figures] | None = None,
) -> "Bar":
    """Progress over `total` units, of which `initial` are already done. `figures` gives the figures
    so far. It is called at most twice a second."""
    return Bar(total, label, unit, initial, figures)


class Bar:
    """The progress of one piece of work, to be used as a context."""

    def __init__(
        self,
        total: int,
        label: str,
        unit: str,
        initial: int,
        figures: Callable[[], Figures] | None,
    ) -> None:
        self.total, self.label, self.unit, self.done = total, label, unit, initial
        self.figures = figures
        self.past: deque[tuple[float, int]] = deque([(time.monotonic(), initial)])
        self.next_s = 0.0
        self.shown = None if os.environ.get(SHOWN) else _tqdm(total, label, unit, initial)
        self._tell()

    def update(self, n: int) -> None:
        """So many more units are done."""
        self.done += n
        now = time.monotonic()
        if now >= self.next_s:
            self.next_s = now + TELL_INTERVAL_S
            self.past.append((now, self.done))
            while len(self.past) > 2 and now - self.past[0][0] > RATE_OVER_S:
                self.past.popleft()
            self._tell()
        if self.shown is not None:
            self.shown.update(n)

    @property
    def rate(self) -> float | None:
        """Units a second; None where nothing is known yet."""
        (since, before), (now, done) = self.past[0], self.past[-1]
        return (done - before) / (now - since) if now > since else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if error is None:  # else a figure might hide it by an error of its own
            self._tell()
        if self.shown is not None:
            self.shown.close()

    def _tell(self) -> None:
        if _job is None and self.shown is None:
            return
        figures = self.figures() if self.figures is not None else {}
        ranges = {
            name: [min(values), max(values)]
            for name, values in figures.items()
            if values and all(value == value for value in values)
        }
        if _job is not None:
            _job.tell(
                {
                    "label": self.label,
                    "unit": self.unit,
                    "done": self.done,
                    "total": self.total,
                    "rate": self.rate,
                    "figures": ranges,
                }
            )
        if self.shown is not None and ranges:
            words = {name: f"{low:.3g}..{high:.3g}" for name, (low, high) in ranges.items()}
            self.shown.set_postfix(words, refresh=False)


def _tqdm(total: int, label: str, unit: str, initial: int) -> tqdm | None:
    """The bar; None where stderr is closed."""
    if sys.stderr is None:
        return None
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        desc=label,
        unit=unit,
        unit_scale=True,
        file=sys.stderr,
        mininterval=TERMINAL_INTERVAL_S if terminal else FILE_INTERVAL_S,
        dynamic_ncols=terminal,
    )


def say(words: str) -> None:
    """Say a line on stderr while bars are shown, from any thread; nothing where nobody can read it
    any more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        tqdm.write(f"saemake: {words}", file=sys.stderr)
        sys.stderr.flush()
