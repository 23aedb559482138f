"""Snapshots of a pass: all that its next step depends on, so that a killed pass goes on from there
and ends with the bytes of one that was never interrupted.

A snapshot is an entry of the store: written beside its place and renamed into it, with checksums
that are compared before anything of it is read.
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch

from saemake.recipes import digest
from saemake.store import Store

CONTENTS = "contents.json"
SHARED = "shared.pt"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One in the store: the step that comes next, and the recipe hashes of the SAEs in it."""

    key: str
    step: int
    members: frozenset[str]


class Snapshots:
    """The snapshots of all passes, in the store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def covering(self, members: Collection[str]) -> Snapshot | None:
        """The whole snapshot that has most of these SAEs, of those the furthest; a damaged one is
        dropped, and said."""
        ranked = sorted(
            (len(found.members & set(members)), found.step, found.key, found)
            for found in self._all()
        )
        for count, _, key, found in reversed(ranked):
            if count and self.store.has(key):
                return found
        return None

    def put(
        self,
        step: int,
        members: Collection[str],
        shared: dict[str, Any],
        states: dict[str, dict[str, Any]],
    ) -> None:
        """Store the state of a pass before `step`: of its SAEs (by their recipes' hashes) what they
        share, and the own state of each that has not diverged; then drop earlier ones."""
        key = digest([sorted(members), step])
        if self.store.has(key):
            return
        with self.store.entry(key) as folder:
            torch.save(shared, folder / SHARED)
            for member, state in states.items():
                torch.save(state, folder / f"{member}.pt")
            contents = {"step": step, "members": sorted(members)}
            (folder / CONTENTS).write_text(json.dumps(contents, indent=1) + "\n")
        self.prune(members, but=key)

    def shared(self, snapshot: Snapshot) -> dict[str, Any]:
        """What the SAEs of a snapshot share; tensors on the CPU."""
        return self._load(snapshot, SHARED)

    def member(self, snapshot: Snapshot, member: str) -> dict[str, Any]:
        """One SAE's own state; tensors on the CPU."""
        return self._load(snapshot, f"{member}.pt")

    def prune(self, members: Collection[str], but: str | None = None) -> None:
        """Drop the snapshots that have none but these SAEs."""
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
                yield Snapshot(key, contents["step"], frozenset(contents["members"]))
            except (OSError, ValueError, KeyError, TypeError):
                # Damaged, or dropped by another process just now.
                self.store.has(key)

    def _load(self, snapshot: Snapshot, name: str) -> dict[str, Any]:
        path = self.store.folder / snapshot.key / name
        return torch.load(path, map_location="cpu", weights_only=True)


class Clock:
    """Says when a snapshot is due: each `seconds` of wall-clock time."""

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self.seconds, self.now = seconds, now
        self.last = now()

    def due(self) -> bool:
        if self.now() - self.last < self.seconds:
            return False
        self.last = self.now()
        return True
