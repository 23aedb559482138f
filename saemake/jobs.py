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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from saemake import asked, interrupts, made, source
from saemake.config import read
from saemake.errors import SaemakeError, first_line
from saemake.store import disk_fault

PR_SET_PDEATHSIG = 1  # of linux/prctl.h

# Scripts import this module before the ones that take seconds, and `job` begins after those.
interrupts.say_in_one_line()


class Script(Protocol):
    """What Snakemake gives a script, as far as it is read here: paths, and the config's YAML."""

    log: Sequence[str]
    input: Sequence[str]
    output: Sequence[str]
    config: Mapping[str, Any]


@contextlib.contextmanager
def job(script: Script) -> Iterator[None]:
    """Log to the job's log, and record what its outputs were made from (see saemake.made) when the
    block has ended well. End the process with status 1 and one line on stderr where it fails. The
    traceback of what nobody foresaw goes to the log, whose path the line gives.
    """
    _end_with_parent()
    path = Path(script.log[0])
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
        # Before the work: another process may replace an input while it is going on.
        inputs = made.sums(script.input)
        yield
        _record(script, inputs)
    except BaseException as error:  # re-raised or turned into an exit status, never swallowed
        logging.error("%s", "".join(traceback.format_exception(error)))
        if isinstance(error, OSError):
            error = disk_fault(error, Path(error.filename or path))
        if isinstance(error, SaemakeError):
            print(f"saemake: {error}", file=sys.stderr, flush=True)
        elif isinstance(error, Exception):
            print(
                f"saemake: {type(error).__name__}: {first_line(error)} (traceback in {path})",
                file=sys.stderr,
                flush=True,
            )
        elif isinstance(error, KeyboardInterrupt):
            print(interrupts.SAID, file=sys.stderr, flush=True)
        else:
            raise
        sys.exit(1)


def _record(script: Script, inputs: dict[str, str]) -> None:
    config = read(script.config, source.ROOT, [])
    recipes = {path: asked.recipes_of(config, path) for path in script.output}
    job = {name: by.hash for of_one in recipes.values() for name, by in of_one.items()}
    for path, sum_ in made.sums(script.output).items():
        made.write(path, made.Made(sha256=sum_, inputs=inputs, recipes=recipes[path], job=job))


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
