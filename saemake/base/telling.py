"""Small files by which a process tells others what it is doing, as long as it lives.

The process holds a lock on its file, which the kernel frees when the process ends, however it ends.
A reader that can lock a file knows that its writer is gone.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

# What cannot be locked (some network file systems) is taken for dead after this time.
SILENT_S = 60.0


class Told:
    """A file of this process. It appears whole, and is replaced whole. Nothing here raises: to tell
    is never worth a failed job."""

    def __init__(self, folder: Path, kind: str) -> None:
        host = "".join(letter for letter in socket.gethostname() if letter.isalnum())
        self.path = folder / f"{kind}-{host or 'host'}-{os.getpid()}.json"
        self.locked: IO[str] | None = None

    def write(self, content: Mapping[str, Any]) -> bool:
        """Replace the content. False where that cannot be done, as on a full disk."""
        with contextlib.suppress(OSError, ValueError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(".new")
            opened = temporary.open("w")
            try:
                opened.write(json.dumps(content))
                opened.flush()
                # Before it appears: a reader never finds a living process's file unlocked.
                with contextlib.suppress(OSError):
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                temporary.replace(self.path)
            except BaseException:
                opened.close()
                raise
            self._let_go()
            self.locked = opened
            return True
        return False

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._let_go()

    def leave(self) -> None:
        """Keep the file for who may read last words in it, and be taken for dead."""
        self._let_go()

    def _let_go(self) -> None:
        if self.locked is not None:
            with contextlib.suppress(OSError):
                self.locked.close()
            self.locked = None


def living(folder: Path, kind: str, *, clean: bool = False) -> list[dict[str, Any]]:
    """What living processes tell, the oldest first. `clean` removes the files of dead ones."""
    told = []
    for path in _files(folder, kind):
        with contextlib.suppress(OSError):
            if (content := _living(path, clean)) is not None:
                told.append(content)
    return sorted(told, key=lambda each: str(each.get("started")))


def _living(path: Path, clean: bool) -> dict[str, Any] | None:
    """What the file of a living process tells; None if the process is dead. A process may replace
    its file after it was opened here, and unlock the old one: then the new one is read."""
    while True:
        with path.open() as opened:
            if not _is_dead(opened):
                return _content(opened)
            if path.stat().st_ino == os.fstat(opened.fileno()).st_ino:
                if clean:
                    path.unlink(missing_ok=True)
                return None


def all_told(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What processes tell or told last, also those that have ended. Removes nothing."""
    told = []
    for path in _files(folder, kind):
        with contextlib.suppress(OSError), path.open() as opened:
            if (content := _content(opened)) is not None:
                told.append(content)
    return told


def _files(folder: Path, kind: str) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from sorted(folder.glob(f"{kind}-*.json"))


def _content(opened: IO[str]) -> dict[str, Any] | None:
    try:
        content = json.loads(opened.read())
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _is_dead(opened: IO[str]) -> bool:
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return _age_s(opened) > SILENT_S
    return True


def _age_s(opened: IO[str]) -> float:
    return time.time() - os.fstat(opened.fileno()).st_mtime
