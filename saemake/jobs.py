"""What every job does around its work: a log, clear last words, and whole files only."""

import contextlib
import ctypes
import json
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saemake.errors import SaemakeError, first_line
from saemake.store import disk_fault

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


@contextlib.contextmanager
def job(log_path: str) -> Iterator[None]:
    """Log to `log_path`; end the process with status 1 and one line on stderr where the block
    fails. The traceback of what nobody foresaw goes to the log, whose path the line gives.
    """
    _end_with_parent()
    path = Path(log_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=path,
        filemode="w",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        yield
    except BaseException as error:  # re-raised or turned into an exit status, never swallowed
        logging.error("%s", "".join(traceback.format_exception(error)))
        if isinstance(error, OSError):
            error = disk_fault(error, Path(error.filename or log_path))
        if isinstance(error, SaemakeError):
            print(f"saemake: {error}", file=sys.stderr, flush=True)
        elif isinstance(error, Exception):
            print(
                f"saemake: {type(error).__name__}: {first_line(error)} (traceback in {path})",
                file=sys.stderr,
                flush=True,
            )
        elif isinstance(error, KeyboardInterrupt):
            print("saemake: interrupted; the same command goes on", file=sys.stderr, flush=True)
        else:
            raise
        sys.exit(1)


def _end_with_parent() -> None:
    """Get SIGTERM when snakemake is killed, instead of running on alone (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == 1:  # it was killed before this line
            sys.exit(1)


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
