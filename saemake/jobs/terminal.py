"""A terminal whose last lines are painted again and again.

While it is taken, whatever this process and its children write to stderr and stdout goes through a
pipe and appears above those lines, which it would tear otherwise.
"""

import codecs
import contextlib
import os
import select
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Sequence

STDOUT, STDERR = 1, 2
UNKNOWN_SIZE = os.terminal_size((80, 24))
UP, TO_END_OF_LINE, TO_END_OF_SCREEN = "\x1b[{}A", "\x1b[K", "\x1b[J"
ESCAPE = "\x1b"
DRAIN_S = 2.0


class Terminal:
    """The terminal behind stderr. `shown` gives what is shown of each line of others.

    Nothing raises where the terminal cannot be written to: nothing is shown then, and what others
    write is read and dropped, so that they go on.
    """

    def __init__(self, shown: Callable[[str], Sequence[str]] = lambda line: [line]) -> None:
        self.shown = shown
        self.lock = threading.RLock()
        # What is painted, and how many cells of each line.
        self.lines: list[str] = []
        self.widths: list[int] = []
        self.painting = False
        self.broken = False
        self.partial = ""
        _flush()
        self.terminal = os.dup(STDERR)
        taken = [fd for fd in (STDOUT, STDERR) if fd == STDERR or _is_terminal(fd)]
        self.before = {fd: os.dup(fd) for fd in taken}
        self.pipe, write = os.pipe()
        for fd in taken:
            os.dup2(write, fd)
        os.close(write)
        self.end, self.ended = f"\0{uuid.uuid4()}".encode(), threading.Event()
        self.reader = threading.Thread(target=self._read, name="screen", daemon=True)
        self.reader.start()

    @property
    def size(self) -> os.terminal_size:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(self.terminal)
            if size.columns > 0 and size.lines > 0:
                return size
        return UNKNOWN_SIZE

    def say(self, words: str, colour: str = "{}") -> None:
        """Print lines above the painted ones, wrapped to the terminal's width."""
        width = self.size.columns
        with self.lock:
            lines = [part for line in words.splitlines() for part in _wrapped(line, width)]
            above = "".join(f"{colour.format(line)}\n" for line in lines)
            self._write(self._erased() + above + self._picture())

    def paint(self, lines: Sequence[str], widths: Sequence[int]) -> None:
        """Replace the last lines by these, of so many cells each."""
        with self.lock:
            self.painting = True
            up = self._rows_painted()
            start = "\r" + (UP.format(up) if up else "")
            rows = self.size.lines - 1
            self.lines, self.widths = list(lines[:rows]), list(widths[:rows])
            self._write(start + self._picture() + TO_END_OF_SCREEN)

    def give_back(self) -> None:
        """Show what is left of others' words, remove the painted lines, and leave the terminal to
        them again."""
        if not self.before:
            return
        _flush()
        with contextlib.suppress(OSError):
            os.write(STDERR, self.end)
        for fd, old in self.before.items():
            os.dup2(old, fd)
            os.close(old)
        self.before = {}
        self.ended.wait(DRAIN_S)
        with self.lock:
            self._write(self._erased())
            self.lines, self.widths = [], []

    def _read(self) -> None:
        left, decoder = b"", codecs.getincrementaldecoder("utf-8")("replace")
        while chunk := os.read(self.pipe, 65536):
            before, end, _ = (left + chunk).partition(self.end)
            # What may be the beginning of the end waits for the rest of it.
            kept = 0 if end else _overlap(before, self.end)
            left = before[len(before) - kept :]
            text = decoder.decode(before[: len(before) - kept], final=bool(end))
            # Whoever writes to the pipe waits for this thread: it has to go on.
            with contextlib.suppress(Exception):
                self._take(text)
            if end:
                break
        with contextlib.suppress(Exception):
            self._take("\n" if self.partial else "")
        self.ended.set()
        # A process that outlives the screen still writes to the pipe, and would wait for good.
        while chunk := os.read(self.pipe, 65536):
            self._write(chunk.decode(errors="replace"))

    def _take(self, text: str) -> None:
        """Show what others wrote: whole lines above the painted ones."""
        with self.lock:
            *lines, self.partial = (self.partial + text).split("\n")
            for line in lines:
                # A bar that others draw writes its line again and again; the last time counts.
                line = line.rstrip("\r").rpartition("\r")[2]
                for each in self.shown(line):
                    if self.painting:
                        self.say(each or " ")
                    else:
                        self._write(f"{each}\n")

    def _rows_painted(self) -> int:
        """Rows that the painted lines take now: a terminal that became narrower wraps them."""
        columns = self.size.columns
        return sum(max(1, -(-width // columns)) for width in self.widths)

    def _picture(self) -> str:
        return "".join(f"{line}{TO_END_OF_LINE}\n" for line in self.lines)

    def _erased(self) -> str:
        up = self._rows_painted()
        return "\r" + UP.format(up) + TO_END_OF_SCREEN if up else ""

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        while data and not self.broken:
            try:
                data = data[os.write(self.terminal, data) :]
            except BlockingIOError:
                select.select([], [self.terminal], [], 1)
            except OSError:
                self.broken = True


def _wrapped(line: str, width: int) -> list[str]:
    line = line.expandtabs().rstrip()
    if len(line) <= width or ESCAPE in line:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False) or [""]


def _overlap(text: bytes, end: bytes) -> int:
    """The length of the longest end of the text that `end` begins with."""
    return next((n for n in range(min(len(text), len(end)), 0, -1) if text.endswith(end[:n])), 0)


def _is_terminal(fd: int) -> bool:
    with contextlib.suppress(OSError):
        return os.isatty(fd)
    return False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
