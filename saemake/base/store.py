"""The store: finished work by the hash of its recipe, outside the outputs that Snakemake deletes.

    results/.store/<kind>/<hash>/...      the files, and their sha256 in `sums.json`
    results/.store/locks/<hash>.lock      one per entry; a pass holds the locks of its SAEs

An entry appears whole or not at all: it is written beside its place and renamed into it. Behind it
there may be a store that others share (saemake.base.remote).
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Protocol

from saemake.base.errors import SaemakeError

SUMS = "sums.json"
# A hidden folder that nobody touched for this long is left over from a kill.
LEFTOVER_SECONDS = 3600


class Shared(Protocol):
    """What a store asks of one that others share."""

    def fetch(self, store: "Store", recipes: Mapping[str, str]) -> None: ...

    def made(self, kind: str, key: str) -> None: ...


class Store:
    """Entries of one kind ('saes', 'evaluations', 'tokens') under `root`. With a `remote` one
    that others share, `bring` fetches entries from it, and it hears of each that is made."""

    def __init__(self, root: Path, kind: str, remote: Shared | None = None) -> None:
        self.kind, self.remote = kind, remote
        self.folder = root / kind
        self.locks = root / "locks"

    def bring(self, recipes: Mapping[str, str]) -> None:
        """Fetch entries that are missing here from the shared store, as far as it has them: by key,
        with the hash of the recipe that their files must say. Drops damaged entries. The caller
        holds their locks. Raises SaemakeError if the disk is full."""
        if self.remote is not None:
            missing = {key: recipe for key, recipe in recipes.items() if not self.has(key)}
            if missing:
                self.remote.fetch(self, missing)

    def beside(self, kind: str) -> "Store":
        """The entries of another kind under the same root."""
        return Store(self.folder.parent, kind)

    def has(self, key: str) -> bool:
        """Whether the entry exists with the files that were put. A damaged entry is reported and
        dropped, so that it is made again."""
        fault = self.fault(key)
        if fault:
            entry = self.folder / key
            print(f"saemake: the store's {entry} is damaged ({fault}); making it again", flush=True)
            self.drop(key)
        return fault is None and (self.folder / key).is_dir()

    def holds(self, key: str) -> bool:
        """Whether the entry exists and is undamaged. Changes nothing."""
        return (self.folder / key).is_dir() and self.fault(key) is None

    def fault(self, key: str) -> str | None:
        """What is wrong with the entry. None if it is undamaged or does not exist."""
        entry = self.folder / key
        return self._fault(entry) if entry.is_dir() else None

    def _fault(self, entry: Path) -> str | None:
        try:
            sums = json.loads((entry / SUMS).read_text())
            for name, expected in sums.items():
                if sha256(entry / name) != expected:
                    return f"{name} has changed"
        except (OSError, ValueError) as error:
            return str(error)
        return None

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Store small files as one entry. Raises SaemakeError if no space is left."""
        with self.entry(key) as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)

    @contextlib.contextmanager
    def entry(self, key: str, *, made: bool = True) -> Iterator[Path]:
        """A folder to write an entry into. It becomes the entry when the block ends without an
        exception. `made` says whether it was made here, and not fetched. Raises SaemakeError if the
        disk is full or the place forbidden."""
        place = self.folder / key
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(prefix=f".{key[:16]}-", dir=self.folder))
            try:
                yield new
                written = sorted(path for path in new.rglob("*") if path.is_file())
                sums = {path.relative_to(new).as_posix(): sha256(path) for path in written}
                (new / SUMS).write_text(json.dumps(sums, indent=1) + "\n")
                for path in new.rglob("*"):
                    _sync(path)
                new.chmod(0o755)
                if place.exists() and self.has(key):  # `has` drops a damaged entry
                    return
                try:
                    new.rename(place)
                    if made and self.remote is not None:
                        self.remote.made(self.kind, key)
                except OSError as error:
                    # Another process has just put the same entry.
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                _sync(self.folder)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        except OSError as error:
            raise disk_fault(error, place) from error

    def link(self, key: str, targets: Mapping[str, Path]) -> None:
        """Make each target path a hard link to the entry's file. On another disk it is a copy."""
        for name, target in targets.items():
            source = self.folder / key / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{target.name}.{os.getpid()}")
                temporary.unlink(missing_ok=True)
                try:
                    os.link(source, temporary)
                except OSError as error:
                    if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                        raise
                    shutil.copyfile(source, temporary)
                temporary.replace(target)
                # `replace` does nothing if both names are links to the same file.
                temporary.unlink(missing_ok=True)
            except OSError as error:
                raise disk_fault(error, target) from error

    def entries(self) -> list[str]:
        """The keys of all finished entries, sorted."""
        return sorted(path.name for path in self._folders() if path.name[0] != ".")

    def sweep(self) -> None:
        """Remove folders that kills left half-written: hidden, and not touched lately."""
        for path in self._folders():
            with contextlib.suppress(FileNotFoundError):
                if path.name[0] == "." and time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if path.is_dir()]

    def drop(self, key: str) -> None:
        """Remove an entry. It first gets a name that nothing reads, so it is never half there."""
        dropped = self.folder / f".dropped-{key[:16]}-{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            (self.folder / key).rename(dropped)
            shutil.rmtree(dropped, ignore_errors=True)

    def read(self, key: str, name: str) -> bytes:
        """The content of an entry's file."""
        return (self.folder / key / name).read_bytes()

    def sum_of(self, key: str, name: str) -> str:
        """The recorded sha256 of an entry's file."""
        return json.loads((self.folder / key / SUMS).read_text())[name]

    def files(self, key: str) -> list[str]:
        """The names of an entry's files."""
        return sorted(json.loads((self.folder / key / SUMS).read_text()))

    @contextlib.contextmanager
    def try_lock(self, keys: Iterable[str]) -> Iterator[bool]:
        """Hold the locks of entries, if nobody else holds any of them. Yields whether it does."""
        self.locks.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            try:
                for key in sorted(keys):
                    handle = held.enter_context(self._lock_file(key).open("w"))
                    _flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextlib.contextmanager
    def shared(self, key: str) -> Iterator[None]:
        """Keep an entry from being made or pruned, beside others that read it."""
        self.locks.mkdir(parents=True, exist_ok=True)
        with self._lock_file(key).open("w") as handle:
            _flock(handle, fcntl.LOCK_SH)
            yield

    def _lock_file(self, key: str) -> Path:
        return self.locks / f"{key[:32]}.lock"

    @contextlib.contextmanager
    def lock(self, keys: Iterable[str]) -> Iterator[None]:
        """Hold the locks of a pass, one per entry, waiting for processes that hold them. All
        processes lock in the same order, so they cannot wait for each other in a circle."""
        self.locks.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            for key in sorted(keys):
                handle = held.enter_context(self._lock_file(key).open("w"))
                try:
                    _flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print("saemake: another process makes this; waiting for it", flush=True)
                    _flock(handle, fcntl.LOCK_EX)
            yield


def _flock(handle: IO[str], how: int) -> None:
    """Raises BlockingIOError if another process has the lock and `how` says not to wait, and
    SaemakeError where the file system has no locks."""
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        raise
    except OSError as error:
        raise SaemakeError(
            f"{handle.name}: its file system gives no lock ({error.strerror}); mount it with flock"
            " (docs/slurm.md#files), or keep the project on another"
        ) from error


def sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def disk_fault(error: OSError, place: Path) -> Exception:
    """A full disk or a forbidden place as a SaemakeError; any other OSError unchanged."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SaemakeError(
            f"{place}: no space left on the device; free some and run the same command again"
            " (nothing half-written is kept, nothing finished is lost)"
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return SaemakeError(f"{place}: cannot be written ({error.strerror}); make it writable")
    return error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
