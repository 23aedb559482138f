"""A store that is shared: finished entries of the store, by the same keys, under a URL.

    <url>/<kind>/<key>/<sha256>      the bytes of each file, by their sha256
    <url>/<kind>/<key>/entry.json    the names of the files with sums and sizes, and `pins`

entry.json is written last, so an entry appears whole or not at all. Files have their sums as names,
so two machines that write the same entry at once cannot mix their files. `pins` are the commits
that branches of the Hub had for who made the entry: a recipe may name a branch.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from saemake.base.digest import digest
from saemake.base.remote_files import RemoteError, RemoteFiles, Upload
from saemake.base.saying import say
from saemake.base.store import Store

log = logging.getLogger(__name__)
# The kinds that are shared, each with the files that an entry must have. Not shared are setups,
# which SAE Bench's own code unpickles, and tokens and rows of datasets, which are other people's
# text; snapshots are of one machine.
KINDS = {
    "saes": {"ae.pt", "config.json", "training.csv", "provenance.json"},
    "checkpoints": {"ae.pt", "of_sae.txt"},
    "baselines": {"pca.safetensors", "recipe.json"},
    "evaluations": {"figures.json", "recipe.json"},
    "features": {"features.parquet", "recipe.json"},
}
# An evaluation has one of these, too.
BESIDE_FIGURES = {"latents.parquet", "details.json"}
ENTRY = "entry.json"
MOST_FILES, MOST_ENTRY_BYTES = 10_000, 2**22
MOST_BYTES = 2**36
# Of a file that is read at once; the others are weights and tables.
MOST_TEXT_BYTES, TEXTS = 2**26, {".json", ".txt", ".csv"}
SPARE_DISK_BYTES = 2**28
# Files of entries in one commit to the Hub.
BATCH = 25
# The environment variable that names a run of the workflow, for all of its processes.
RUN = "SAEMAKE_RUN"
FORGOTTEN_AFTER_S = 86_400
# What can fail by itself: who may read may not write.
FETCH, PUSH = "fetch", "push"


class RefusedError(Exception):
    """Why an entry of a shared store is not used, in a few words. `damaged` says whether it is of
    no use to anybody, so that a push may replace it."""

    def __init__(self, why: str, *, damaged: bool = True) -> None:
        self.damaged = damaged
        super().__init__(why)


@dataclass(frozen=True)
class Listed:
    """What entry.json says: sha256 and size of each file by its name, and the pins."""

    files: Mapping[str, tuple[str, int]]
    pins: Sequence[Mapping[str, str]]

    @property
    def size(self) -> int:
        return sum(size for _, size in self.files.values())


@dataclass
class Remote:
    """A shared store, for the store under `root`. Where it fails this is said once in a run, and
    the run goes on without it."""

    url: str
    push: bool
    root: Path
    files: RemoteFiles = field(init=False)
    # Of this process: what it has made; entries there that it has refused; whether an answer came.
    _made: list[tuple[str, str]] = field(default_factory=list)
    _refused: set[tuple[str, str]] = field(default_factory=set)
    _answered: bool = False
    _failed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.files = RemoteFiles(self.url)

    def fetch(self, store: Store, recipes: Mapping[str, str]) -> None:
        """Put entries into a store that the shared store has, by key with the hash of the recipe
        that their files must say. An entry that is damaged or another's is refused in one line. The
        caller holds the locks of the keys. Raises SaemakeError if the disk is full."""
        if store.kind not in KINDS or self._has_failed(FETCH):
            return
        fetched: list[int] = []
        try:
            for key, recipe in recipes.items():
                try:
                    listed = self._listed(store.kind, key)
                    if listed is not None:
                        self._take(store, key, recipe, listed)
                        fetched.append(listed.size)
                except RefusedError as error:
                    if error.damaged:
                        self._refused.add((store.kind, key))
                    say(f"{self.url}/{store.kind}/{key}: {error}; it is not used")
        except RemoteError as error:
            self._fail(FETCH, str(error))
        if fetched:
            count = f"{len(fetched)} of {len(recipes)} {store.kind}"
            say(f"fetched {count} from {self.url} ({sum(fetched) / 2**20:.1f} MiB)")

    def made(self, kind: str, key: str) -> None:
        """Have an entry pushed at the end of the job, where that is wanted."""
        if self.push and kind in KINDS:
            self._made.append((kind, key))

    def push_made(self) -> None:
        """Push what this process has made. Where that fails it says so once in a run."""
        made, self._made = self._made, []
        if not made or self._has_failed(FETCH) or self._has_failed(PUSH):
            return
        try:
            self.send(made)
        except RemoteError as error:
            self._fail(PUSH, str(error))
        except (OSError, ValueError, KeyError) as error:  # an entry was pruned meanwhile, say
            self._fail(PUSH, f"an entry here cannot be read ({type(error).__name__})")

    def send(self, entries: Sequence[tuple[str, str]]) -> int:
        """Push entries of the local store, by kind and key, that are not there. Returns how many
        were pushed. Raises RemoteError."""
        self._check_root()
        missing = [each for each in entries if each in self._refused or not self._is_there(*each)]
        for first in range(0, len(missing), BATCH):
            batch = missing[first : first + BATCH]
            uploads = [upload for each in batch for upload in self._uploads(*each)]
            # All bytes before what lists them.
            uploads.sort(key=lambda upload: upload[0].endswith(f"/{ENTRY}"))
            self.files.upload(uploads, f"saemake: {len(batch)} entries of the store")
            log.info("pushed %d entries to %s", len(batch), self.url)
        return len(missing)

    def entries(self) -> dict[str, set[str]]:
        """The keys of all that is there, by kind. Raises RemoteError."""
        self._check_root()
        found: dict[str, set[str]] = {kind: set() for kind in KINDS}
        for path in self.files.matching(f"*/*/{ENTRY}"):
            kind, key, _ = path.rsplit("/", 2)
            if kind in found:
                found[kind].add(key)
        return found

    def _check_root(self) -> None:
        """A missing bucket looks like an empty one otherwise."""
        if not self._answered:
            if Path(self.url.removeprefix("file://")).is_relative_to(self.root.resolve()):
                raise RemoteError("lies in this project's own store")
            self.files.check_root()
            self._answered = True

    def _is_there(self, kind: str, key: str) -> bool:
        return ENTRY in self.files.folder(f"{kind}/{key}")

    def _listed(self, kind: str, key: str) -> Listed | None:
        """What is said of an entry; None where it is not there."""
        self._check_root()
        sizes = self.files.folder(f"{kind}/{key}")
        if ENTRY not in sizes:
            return None
        if sizes[ENTRY] > MOST_ENTRY_BYTES:
            raise RefusedError(f"{ENTRY} is too large")
        listed = _parsed(self.files.read(f"{kind}/{key}/{ENTRY}", sizes[ENTRY]))
        if missing := sorted(KINDS[kind] - set(listed.files)):
            raise RefusedError(f"{ENTRY} lists no {missing[0]}")
        if kind == "evaluations" and not BESIDE_FIGURES & set(listed.files):
            raise RefusedError(f"{ENTRY} lists none of {', '.join(sorted(BESIDE_FIGURES))}")
        for name, (sum_, size) in listed.files.items():
            if size > MOST_TEXT_BYTES and PurePosixPath(name).suffix in TEXTS:
                raise RefusedError(f"{name} is too large")
            if sizes.get(sum_) != size:
                raise RefusedError(f"{name} is damaged ({sum_} is missing or has another size)")
        return listed

    def _take(self, store: Store, key: str, recipe: str, listed: Listed) -> None:
        self._check_pins(listed)
        free = shutil.disk_usage(self.root).free - SPARE_DISK_BYTES
        if listed.size > min(free, MOST_BYTES):
            raise RefusedError(
                f"its {listed.size / 2**30:.1f} GiB are too many for this disk", damaged=False
            )
        with store.entry(key, made=False) as folder:
            for name, (sum_, size) in listed.files.items():
                path = f"{store.kind}/{key}/{sum_}"
                if self._download(path, folder / name, size) != sum_:
                    raise RefusedError(f"{name} is damaged (the sha256 of {sum_} differs)")
            said = _recipe_said(store.kind, folder)
            if said != recipe:
                raise RefusedError(f"it is of another recipe ({said[:16]!r})")
        log.info("fetched %s/%s from %s", store.kind, key, self.url)

    def _download(self, path: str, target: Path, size: int) -> str:
        """Returns the sha256."""
        target.parent.mkdir(parents=True, exist_ok=True)
        summed = hashlib.sha256()
        with target.open("xb") as opened:
            for block in self.files.blocks(path, size):
                summed.update(block)
                opened.write(block)
        return summed.hexdigest()

    def _check_pins(self, listed: Listed) -> None:
        revisions = Store(self.root, "revisions")
        for pin in listed.pins:
            here = _read_json(revisions.folder / digest(_branch(pin)) / "commit.json")
            if here and here["commit"] != pin["commit"]:
                raise RefusedError(
                    f"made from commit {pin['commit'][:12]} of {pin['hub']}, whose"
                    f" {pin['revision']} is {here['commit'][:12]} here (name a commit in"
                    " the config)",
                    damaged=False,
                )

    def _uploads(self, kind: str, key: str) -> Iterator[Upload]:
        store = Store(self.root, kind)
        folder = store.folder / key
        sums = {name: store.sum_of(key, name) for name in store.files(key)}
        for name, sum_ in sums.items():
            yield f"{kind}/{key}/{sum_}", folder / name
        said = {
            "files": {
                n: {"sha256": s, "bytes": (folder / n).stat().st_size} for n, s in sums.items()
            },
            "pins": self._pins(kind, folder),
        }
        yield f"{kind}/{key}/{ENTRY}", (json.dumps(said, indent=1) + "\n").encode()

    def _pins(self, kind: str, folder: Path) -> list[dict[str, str]]:
        """The commits of the branches that an entry's recipe names."""
        sources = set(_sources(self._recipe(kind, folder)))
        revisions = Store(self.root, "revisions")
        known = [_read_json(revisions.folder / key / "commit.json") for key in revisions.entries()]
        return [pin for pin in known if pin and (pin["hub"], pin["revision"]) in sources]

    def _recipe(self, kind: str, folder: Path) -> Any:
        """The recipe that an entry's files say, with that of its setup."""
        if kind == "checkpoints":
            sae = (folder / "of_sae.txt").read_text()
            return _read_json(self.root / "saes" / sae / "provenance.json")
        if kind == "saes":
            return _read_json(folder / "provenance.json")
        recipe = _read_json(folder / "recipe.json") or {}
        setup = recipe.get("setup")
        return [recipe, _read_json(self.root / "setups" / str(setup) / "recipe.json")]

    # What is remembered for a run: its processes find a file.

    def _has_failed(self, what: str) -> bool:
        noted = self._note(what)
        return what in self._failed or (noted is not None and noted.exists())

    def _fail(self, what: str, reason: str) -> None:
        """Go on without fetching, or pushing, until the run ends. The first process to find out
        says so."""
        self._failed.add(what)
        log.warning("shared store %s: %s", self.url, reason)
        noted = self._note(what)
        if noted is not None:
            with contextlib.suppress(OSError):
                noted.parent.mkdir(parents=True, exist_ok=True)
                for old in noted.parent.iterdir():
                    if time.time() - old.stat().st_mtime > FORGOTTEN_AFTER_S:
                        old.unlink(missing_ok=True)
            try:
                noted.touch(exist_ok=False)
            except FileExistsError:
                return
            except OSError:
                pass
        without = "goes on without it" if what == FETCH else "pushes nothing more"
        later = "; push what it makes later: saemake store --push" if self.push else ""
        say(f"shared store {self.url}: {reason}; this run {without}{later}")

    def _note(self, what: str) -> Path | None:
        run = os.environ.get(RUN)
        return self.root / "shared" / digest([run, self.url, what])[:16] if run else None


@functools.cache
def remote(url: str, push: bool, root: Path) -> Remote:
    """The shared store at a URL, one for all of a process."""
    opened = Remote(url, push, root)
    _REMOTES.append(opened)
    return opened


_REMOTES: list[Remote] = []


def push_made() -> None:
    """Push what this process has made (see Remote.push_made)."""
    for each in _REMOTES:
        each.push_made()


def begin_run() -> None:
    """Name a run of the workflow, for this process and those that it starts."""
    os.environ[RUN] = f"{os.getpid()}-{time.time_ns()}"


def _parsed(content: bytes) -> Listed:
    """What entry.json says. Raises RefusedError where it is damaged, or names a file outside the
    entry's folder."""
    try:
        said = json.loads(content)
        files = {name: (each["sha256"], each["bytes"]) for name, each in said["files"].items()}
        pins = [{key: pin[key] for key in (*BRANCH, "commit")} for pin in said["pins"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RefusedError(f"{ENTRY} is damaged") from None
    if len(files) > MOST_FILES:
        raise RefusedError(f"{ENTRY} lists too many files ({len(files)})")
    for name, (sum_, size) in files.items():
        if not _is_inside(name) or any(map(files.__contains__, _folders(name))):
            raise RefusedError(f"{ENTRY} names a file outside its folder ({name[:80]!r})")
        if not isinstance(sum_, str) or not re.fullmatch("[0-9a-f]{64}", sum_):
            raise RefusedError(f"{ENTRY} is damaged")
        if type(size) is not int or size < 0:
            raise RefusedError(f"{ENTRY} is damaged")
    values = [value for pin in pins for value in pin.values()]
    if not all(isinstance(value, str) and re.fullmatch(PLAIN, value) for value in values):
        raise RefusedError(f"{ENTRY} is damaged")
    return Listed(files, pins)


BRANCH = ("kind", "hub", "revision")
# Printable, so that a terminal takes no orders from it, and without a backslash.
PLAIN = r"[ -\[\]-~]{1,200}"


def _branch(pin: Mapping[str, str]) -> list[str]:
    """As saemake.hub names a branch in the store."""
    return [pin[key] for key in BRANCH]


def _is_inside(name: str) -> bool:
    """Whether a name is a plain relative path, and none that the store itself uses."""
    parts = name.split("/")
    return (
        PurePosixPath(name).as_posix() == name
        and all(re.fullmatch(PLAIN, part) for part in parts)
        and not {"", ".", ".."} & set(parts)
        and len(name) <= 1000
        and name != "sums.json"
    )


def _folders(name: str) -> list[str]:
    """The folders that a file's name says it lies in."""
    return [parent.as_posix() for parent in PurePosixPath(name).parents]


def _recipe_said(kind: str, folder: Path) -> str:
    """The hash of the recipe that an entry's files say. Raises RefusedError if they cannot be read,
    or do not belong together."""
    try:
        if kind == "checkpoints":
            return (folder / "of_sae.txt").read_text()
        if kind != "saes":
            return digest(json.loads((folder / "recipe.json").read_text()))
        said = json.loads((folder / "provenance.json").read_text())
        with (folder / "ae.pt").open("rb") as weights:
            if hashlib.file_digest(weights, "sha256").hexdigest() != said["ae_sha256"]:
                raise RefusedError("its provenance.json is of another ae.pt")
        return digest(said["recipe"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RefusedError(f"its recipe cannot be read ({type(error).__name__})") from None


def _sources(recipe: Any) -> Iterator[tuple[str, str]]:
    """The repositories of the Hub in a recipe, each with its revision."""
    if isinstance(recipe, list):
        for each in recipe:
            yield from _sources(each)
    if isinstance(recipe, dict):
        for text in ("", "text_"):
            hub, revision = recipe.get(f"{text}hub"), recipe.get(f"{text}revision")
            if isinstance(hub, str) and isinstance(revision, str):
                yield hub, revision
        for each in recipe.values():
            yield from _sources(each)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
