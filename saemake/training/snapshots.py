"""Snapshots of a pass: all that its next step depends on, so that a killed pass goes on from there
and ends with the bytes of one that was never interrupted.

A snapshot is an entry of the store: written beside its place and renamed into it, with checksums
that are compared before anything of it is read.
"""

import dataclasses
import io
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from saemake.base.digest import digest
from saemake.base.store import Store

CONTENTS = "contents.json"
SHARED = "shared.pt"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One in the store: the step that comes next, the recipe hashes of the SAEs in it, and what it
    was made with: device, software, the LM's and the tokens' checksums."""

    key: str
    step: int
    members: frozenset[str]
    made_with: str


class Snapshots:
    """The snapshots of all passes, in the store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def covering(self, members: Collection[str], made_with: str) -> Snapshot | None:
        """The whole snapshot that saves most steps of these SAEs, made with the same; a damaged one
        is dropped, and said."""
        ranked = sorted(
            (len(found.members & set(members)) * found.step, found.key, found)
            for found in self._all()
            if found.made_with == made_with
        )
        for saved, key, found in reversed(ranked):
            if saved and self.store.has(key):
                return found
        return None

    def put(
        self,
        step: int,
        members: Collection[str],
        made_with: str,
        shared: dict[str, Any],
        states: dict[str, dict[str, Any]],
    ) -> None:
        """Store the state of a pass before `step`: of its SAEs (by their recipes' hashes) what they
        share, and the own state of each that has not diverged; then drop earlier ones.

        Raises SaemakeError where there is no space; earlier ones are then left.
        """
        self.store.sweep()
        key = digest([sorted(members), step, made_with])
        with self.store.entry(key) as folder:
            _save(shared, folder / SHARED)
            for member, state in states.items():
                _save(state, folder / f"{member}.pt")
            contents = {"step": step, "members": sorted(members), "made_with": made_with}
            (folder / CONTENTS).write_text(json.dumps(contents, indent=1) + "\n")
        self.prune(members, but=key)

    def shared(self, snapshot: Snapshot) -> dict[str, Any]:
        """What the SAEs of a snapshot share; tensors on the CPU."""
        return self._load(snapshot, SHARED)

    def member(self, snapshot: Snapshot, member: str) -> dict[str, Any]:
        """One SAE's own state; tensors on the CPU."""
        return self._load(snapshot, f"{member}.pt")

    def prune(self, members: Collection[str], but: str | None = None) -> None:
        """Drop the snapshots that have none but these SAEs, all but one of them."""
        for found in self._all():
            if found.key != but and found.members <= set(members):
                self.store.drop(found.key)

    def members_of(self, key: str) -> frozenset[str]:
        """The SAEs in a snapshot, by their recipes' hashes; none where it cannot be read."""
        return next((found.members for found in self._all() if found.key == key), frozenset())

    def _all(self) -> Iterator[Snapshot]:
        for key in self.store.entries():
            try:
                contents = json.loads(self.store.read(key, CONTENTS))
                members = frozenset(contents["members"])
                yield Snapshot(key, contents["step"], members, contents["made_with"])
            except (OSError, ValueError, KeyError, TypeError):
                # Damaged, or dropped by another process just now.
                self.store.has(key)

    def _load(self, snapshot: Snapshot, name: str) -> dict[str, Any]:
        path = self.store.folder / snapshot.key / name
        return torch.load(path, map_location="cpu", weights_only=True)


def _save(state: dict[str, Any], path: Path) -> None:
    """torch.save, which says of a full disk only that its writer failed: the OSError comes out."""
    with path.open("wb") as opened:
        writer = _Writer(opened)
        try:
            torch.save(state, cast(BinaryIO, writer))
        except RuntimeError:
            if writer.error is not None:
                raise writer.error from None
            raise


class _Writer(io.RawIOBase):
    """A file that remembers what went wrong in it."""

    def __init__(self, opened: BinaryIO) -> None:
        self.opened = opened
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self.opened.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        try:
            self.opened.flush()
        except OSError as error:
            self.error = error
            raise


class Clock:
    """Says when a snapshot is due: each `seconds` of wall-clock time."""

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self.seconds, self.now = seconds, now
        self.last = now()

    @property
    def on(self) -> bool:
        """Whether there are snapshots at all."""
        return self.seconds != float("inf")

    def due(self) -> bool:
        if self.now() - self.last < self.seconds:
            return False
        self.last = self.now()
        return True
