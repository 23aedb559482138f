"""Turns: one run of the workflow at a time works on a model's files.

Snakemake deletes a job's outputs when the job starts, and a second run on the same files would
delete what the first reads. So a run waits for its turn before it looks at what there is to do.

The locks are files under results/.store/locks, a model each. The kernel frees them when a run ends,
however it ends. Jobs do not inherit them.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

from saemake.base.errors import SaemakeError
from saemake.base.saying import say
from saemake.base.store import disk_fault
from saemake.config.config import Config
from saemake.config.start_from import models_before
from saemake.paths import shown
from saemake.paths.artifacts import (
    DatasetFile,
    FetchedFile,
    HubFolder,
    OwnFigureFile,
    RepositoryFile,
)
from saemake.paths.command_words import plain
from saemake.paths.files import evaluation_in, hub_entries
from saemake.paths.grammar import model_in, parse
from saemake.paths.names import PUBLISHED, RESULTS, STORE

LOCKS = STORE / "locks"
# The commits of published repositories, which models may share. No model has a name with `_` first.
SHARED = "_published"
CANNOT_LOCK = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def touched(config: Config, targets: Iterable[str]) -> list[str]:
    """What a run on these targets needs the turn of: names of models, and SHARED; sorted. No target
    is `rule all`; what is none of the known paths may touch everything."""
    everything = {*config.models, SHARED}
    models: set[str] = set()
    for target in [*targets] or ["all"]:
        models |= _of_all(config) if target == "all" else _of_path(config, target) or everything
    return sorted(models)


def _of_all(config: Config) -> set[str]:
    return {name for model in config.build for name in _models(config, model, model)}


def _of_path(config: Config, path: str) -> set[str]:
    """Of one path; empty where it cannot be told."""
    try:
        artifact = parse(config, plain(path))
    except SaemakeError:
        return {model} if (model := model_in(config, path)) else set()
    match artifact:
        case RepositoryFile() | DatasetFile():
            return set()
        case FetchedFile(model, published):
            return _models(config, model, "") | ({SHARED} if published else set())
        case OwnFigureFile(figure):
            what = shown.of_own(config, figure)
            models = {name for each in what.trained for name in _models(config, each.model, "")}
            return models | {
                config.sae_bench_lm(judged.model, name)
                for name, judged in what.apart
                if name in config.sae_bench_evaluations
            }
        case HubFolder(folder):
            return {entry.model for entry in hub_entries(config, folder)}
        case _:
            shared = {SHARED} if str(artifact).startswith(f"{PUBLISHED}/") else set()
            return _models(config, artifact.model, str(artifact)) | shared


def _models(config: Config, model: str, path: str) -> set[str]:
    """A model; where SAE Bench may judge its SAEs, also the LM that it runs; and those whose SAEs
    its SAEs start from."""
    names = {*config.suite_evaluations(model), evaluation_in(config, PurePosixPath(path).name)}
    by_bench = [name for name in config.sae_bench_evaluations if name in names or name in path]
    lms = {config.sae_bench_lm(model, name) for name in by_bench}
    return {model} | lms | _before(config, model)


def _before(config: Config, model: str) -> set[str]:
    """The model entries whose SAEs those of a model start from; with SHARED where published SAEs
    are among them."""
    entries = models_before(config, model)
    starts = (config.training_of(each).start_from for each in (model, *entries))
    fetched = any(each is not None and each.startswith(f"{PUBLISHED}/") for each in starts)
    return {*entries, *([SHARED] if fetched else [])}


def take(names: Iterable[str]) -> list[IO[str]]:
    """Wait until no other run works on any of these, and keep others waiting while the returned
    files are open. All runs take their locks in the same order, so no two wait for each other.

    Where the file system cannot lock, it says so and does not wait. Raises KeyboardInterrupt, and
    SaemakeError where the disk is full, or results/ is no folder.
    """
    held: list[IO[str]] = []
    try:
        LOCKS.mkdir(parents=True, exist_ok=True)
        for name in sorted(names):
            opened = _opened(Path(LOCKS, f"run-{name}.lock"))
            held.append(opened)
            _lock(opened, name)
    except OSError as error:
        if error.errno in CANNOT_LOCK:
            say(f"{LOCKS}: files cannot be locked here; start one snakemake at a time")
        elif error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM):
            fault = disk_fault(error, LOCKS)
            if isinstance(fault, SaemakeError):
                raise fault from None
            raise SaemakeError(
                f"{LOCKS}: cannot be used ({error.strerror}); {_missing()}"
            ) from None
        # Where nothing may be written no job can run, and a job says so better.
    return held


def _opened(lock: Path) -> IO[str]:
    """The file to lock; for reading only where it is another user's, who shares the folder."""
    try:
        return lock.open("a+")
    except PermissionError:
        return lock.open()


def _lock(opened: IO[str], name: str) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        opened.seek(0)
        who = opened.read().strip()
        of_whom = f" (process {who})" if who else ""
        say(f"another run{of_whom} works on {name}; waiting until it ends")
        fcntl.flock(opened, fcntl.LOCK_EX)
    with contextlib.suppress(OSError):  # whose it is helps who waits, and nothing else
        if opened.writable():
            opened.truncate(0)
            opened.write(f"{os.getpid()}\n")
            opened.flush()


def _missing() -> str:
    """What to look at where the folder of the locks cannot be made."""
    if Path(RESULTS).is_symlink() and not Path(RESULTS).exists():
        return f"{RESULTS} is a link to {Path(RESULTS).readlink()}, which is not there"
    return f"{RESULTS}/ must be a folder on a disk that works"
