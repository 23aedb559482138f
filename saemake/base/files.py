"""Whole files: written beside their place and renamed into it."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saemake.base.store import disk_fault


def write(path: str, content: bytes) -> None:
    """Write a file whole: beside its place first, then renamed into it."""
    with _whole(Path(path)) as temporary:
        temporary.write_bytes(content)


def write_json(path: str, content: Any) -> None:
    """Write JSON whole. Raises ValueError where a number in it is not finite."""
    write(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def copy(source: str, path: str) -> None:
    """Copy a file whole. No link: it would be as old as its source, and stale to Snakemake beside
    younger inputs of its job."""
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
