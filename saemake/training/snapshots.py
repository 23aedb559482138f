"""Snapshots of a pass hold all that its next step depends on. A killed pass resumes from one and
ends with the same bytes as a pass that was never interrupted.

A snapshot is an entry of the store: it is written beside its place and renamed into it, and its
checksums are compared before it is read.
"""

import dataclasses
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from saemake.base.digest import digest
from saemake.base.store import Store

CONTENTS = "contents.json"
SHARED = "shared.pt"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A snapshot in the store: the next step, the recipe hashes of its SAEs (`members`), and a
    digest of the device, the software and the checksums of the LM and the tokens (`made_with`)."""

    key: str
    step: int
    members: frozenset[str]
    made_with: str


class Snapshots:
    """The snapshots of all passes, in the store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def covering(self, members: Collection[str], made_with: str) -> Snapshot | None:
        """The snapshot that saves most steps, summed over these SAEs, among those with the same
        `made_with`. None if none saves any. Damaged snapshots are reported and dropped."""
        ranked = sorted(
            (len(snapshot.members & set(members)) * snapshot.step, snapshot.key, snapshot)
            for snapshot in self._all()
            if snapshot.made_with == made_with
        )
        for saved_steps, key, snapshot in reversed(ranked):
            if saved_steps and self.store.has(key):
                return snapshot
        return None

    def put(
        self,
        step: int,
        members: Mapping[str, str],
        made_with: str,
        shared: dict[str, Any],
        states: dict[str, dict[str, Any]],
    ) -> None:
        """Store the state of a pass before `step`, then drop earlier snapshots of these SAEs.
        `members` are its SAEs' names by recipe hash, `shared` is the state that they share, and
        `states` has the state of each SAE that has not diverged.

        Raises SaemakeError if no space is left; earlier snapshots then stay.
        """
        self.store.sweep()
        key = digest([sorted(members), step, made_with])
        with self.store.entry(key) as folder:
            _save(shared, folder / SHARED)
            for member, state in states.items():
                _save(state, folder / f"{member}.pt")
            contents = {
                "step": step,
                "members": sorted(members),
                "names": dict(sorted(members.items())),
                "made_with": made_with,
            }
            (folder / CONTENTS).write_text(json.dumps(contents, indent=1) + "\n")
        self.prune(members, but=key)

    def shared(self, snapshot: Snapshot) -> dict[str, Any]:
        """The state that the SAEs of a snapshot share; tensors are on the CPU."""
        return self._load(snapshot, SHARED)

    def member(self, snapshot: Snapshot, member: str) -> dict[str, Any]:
        """The state of one SAE, by its recipe hash; tensors are on the CPU."""
        return self._load(snapshot, f"{member}.pt")

    def prune(self, members: Collection[str], but: str | None = None) -> None:
        """Drop the snapshots that have no other SAEs than these, except for the snapshot `but`."""
        for snapshot in self._all():
            if snapshot.key != but and snapshot.members <= set(members):
                self.store.drop(snapshot.key)

    def members_of(self, key: str) -> frozenset[str]:
        """The recipe hashes of the SAEs in a snapshot; empty if it cannot be read."""
        matching = (snapshot.members for snapshot in self._all() if snapshot.key == key)
        return next(matching, frozenset())

    def names_of(self, key: str) -> dict[str, str]:
        """The names of the SAEs in a snapshot by recipe hash; empty if it has none."""
        try:
            names: dict[str, str] = json.loads(self.store.read(key, CONTENTS))["names"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return names

    def _all(self) -> Iterator[Snapshot]:
        for key in self.store.entries():
            try:
                contents = json.loads(self.store.read(key, CONTENTS))
                members = frozenset(contents["members"])
                yield Snapshot(key, contents["step"], members, contents["made_with"])
            except (OSError, ValueError, KeyError, TypeError):
                # Damaged, which `has` reports, or just dropped by another process.
                self.store.has(key)

    def _load(self, snapshot: Snapshot, name: str) -> dict[str, Any]:
        path = self.store.folder / snapshot.key / name
        return torch.load(path, map_location="cpu", weights_only=True)


def _save(state: dict[str, Any], path: Path) -> None:
    """torch.save, but a full disk raises the OSError, not torch's RuntimeError about its writer."""
    with path.open("wb") as opened:
        writer = _Writer(opened)
        try:
            torch.save(state, cast(BinaryIO, writer))
        except RuntimeError:
            if writer.error is not None:
                raise writer.error from None
            raise


class _Writer(io.RawIOBase):
    """A file that remembers its last OSError."""

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
    """Says when a snapshot is due: every `seconds` of wall-clock time."""

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self.seconds, self.now = seconds, now
        self.last = now()

    @property
    def on(self) -> bool:
        """Whether snapshots are made at all."""
        return self.seconds != float("inf")

    def due(self) -> bool:
        if self.now() - self.last < self.seconds:
            return False
        self.last = self.now()
        return True
