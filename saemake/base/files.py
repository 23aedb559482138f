"""Atomic file writes: a file is written beside its place and renamed into it."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saemake.base.store import disk_fault


def write(path: str, content: bytes) -> None:
    """Write a file atomically. Raises SaemakeError if the disk is full or the place forbidden."""
    with _whole(Path(path)) as temporary:
        temporary.write_bytes(content)


def write_json(path: str, content: Any) -> None:
    """Write JSON atomically. Raises ValueError if a number in it is not finite."""
    write(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def copy(source: str, path: str) -> None:
    """Copy a file atomically. A link would have the time of its source, and Snakemake would take it
    for stale if its job has younger inputs."""
    with _whole(Path(path)) as temporary:
        shutil.copyfile(source, temporary)


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise disk_fault(error, target) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
