"""Which GPUs a job computes on: those that no other job of this machine has.

A job holds the locks of its GPUs as long as its process lives; the kernel frees it when the process
ends, however it ends. The locks are empty files, one a GPU, in the machine's folder for temporary
files, since jobs of several projects may use the same GPUs.
"""

import contextlib
import fcntl
import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saemake.base.errors import SaemakeError
from saemake.base.saying import say

# NVIDIA's driver lists the GPUs of the machine here, whatever torch can use.
DRIVERS_GPUS = Path("/proc/driver/nvidia/gpus")
VISIBLE = "CUDA_VISIBLE_DEVICES"
# `GPU 0: NVIDIA H200 (UUID: GPU-...)`, and a part of it: `  MIG 1g.18gb Device 0: (UUID: MIG-...)`.
LISTED = re.compile(r"^(?:GPU (?P<index>\d+):.*|\s+MIG .*)\(UUID: (?P<uuid>[^)]+)\)", re.MULTILINE)
FOLDER = Path(tempfile.gettempdir()) / "saemake-gpus"
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Gpu:
    """A GPU that a job may use: what VISIBLE calls it, and what all jobs of the machine call it."""

    entry: str
    uuid: str


class Held:
    """GPUs that this process has, by their places among those that are visible."""

    def __init__(self, places: Sequence[int], opened: Sequence[int]) -> None:
        self.places, self._opened = list(places), list(opened)

    def free(self) -> None:
        """Let others have them."""
        while self._opened:
            os.close(self._opened.pop())


def take(names: Sequence[str], count: int = 1, folder: Path = FOLDER) -> Held:
    """The first so many of these GPUs that no other job holds. Where too few are free, it waits and
    holds none, so that two jobs never wait for each other. `names` are the same in all jobs of the
    machine, such as UUIDs. Where nothing can be locked, the first.
    """
    waiting = False
    while True:
        try:
            held = _free_now(names, count, folder)
        except OSError:
            return Held(range(count), [])
        if len(held.places) == count:
            return held
        held.free()
        if not waiting:
            say(f"other jobs use {_too_many_of(names, count)}; waiting until {_free(count)}")
            waiting = True
        # Not at the same moment as another job that wants several.
        time.sleep(POLL_SECONDS * (1 + random.random()))


def _free_now(names: Sequence[str], count: int, folder: Path) -> Held:
    """Up to so many that are free. Raises OSError where one cannot be locked."""
    found: dict[int, int] = {}
    try:
        for place, name in enumerate(names):
            if len(found) < count and (opened := _locked(folder, name)) is not None:
                found[place] = opened
    except OSError:
        Held([], list(found.values())).free()
        raise
    return Held(list(found), list(found.values()))


def on_machine() -> bool:
    """Whether the driver lists a GPU, and VISIBLE does not hide all. To ask torch takes seconds."""
    if os.environ.get(VISIBLE) in ("", "-1"):
        return False
    try:
        return any(DRIVERS_GPUS.iterdir())
    except OSError:
        return False


def claim(count: int = 1, keys: str = "") -> Held | None:
    """Take so many of the GPUs that are visible, and hide the others from this process and those
    that it starts. None where the machine has no NVIDIA GPU, or VISIBLE hides all of them.

    Call it before torch looks for GPUs: the driver reads VISIBLE only once. Raises SaemakeError
    where fewer are visible, and names the `keys` of the config that ask for so many.
    """
    if not on_machine():
        return None
    gpus = visible(_nvidia_smi(), os.environ)
    if not gpus:
        return None
    if len(gpus) < count:
        raise SaemakeError(too_few("this job", count, len(gpus), keys))
    held = take([gpu.uuid for gpu in gpus], count)
    os.environ[VISIBLE] = ",".join(gpus[place].entry for place in held.places)
    return held


def too_few(whose: str, count: int, seen: int, keys: str) -> str:
    """A line for fewer visible GPUs than the `keys` of the config ask for."""
    return (
        f"{whose} takes {count} GPUs, and {seen} can be seen: lower {keys}, or let {VISIBLE} name"
        " more (of one that is divided, CUDA uses a single part)"
    )


def visible(listed: str, environment: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that a process may use, by what `nvidia-smi -L` lists and by VISIBLE, which names
    them by number or UUID, or by the beginning of a UUID. Of a GPU that is divided (MIG), its
    parts. As in CUDA, what comes after a name that is none is not visible."""
    whole: dict[str, str] = {}
    parts: dict[str, list[str]] = {}
    for match in LISTED.finditer(listed):
        if match["index"] is not None:
            whole[match["index"]] = match["uuid"]
        else:
            parts.setdefault(next(reversed(whole)), []).append(match["uuid"])
    asked = environment.get(VISIBLE)
    if asked is None:
        uuids = [uuid for index in whole for uuid in parts.get(index, [whole[index]])]
        return [Gpu(uuid, uuid) for uuid in uuids]
    known = [*whole.values(), *(uuid for own in parts.values() for uuid in own)]
    found: list[Gpu] = []
    for entry in map(str.strip, asked.split(",")):
        named = [uuid for uuid in known if entry and uuid.startswith(entry)]
        uuid = whole.get(entry) or (named[0] if len(named) == 1 else None)
        if uuid is None:
            break
        found.append(Gpu(entry, uuid))
    return found


def _nvidia_smi() -> str:
    """What it lists; nothing where it cannot be run."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _too_many_of(names: Sequence[str], count: int) -> str:
    if len(names) == 1:
        return "the GPU"
    return f"all {len(names)} GPUs" if count == 1 else f"too many of {len(names)} GPUs"


def _free(count: int) -> str:
    return "one is free" if count == 1 else f"{count} are free"


def _locked(folder: Path, name: str) -> int | None:
    """The open lock of a GPU; None if another process holds it. Raises OSError where it cannot be
    locked."""
    opened = _open(folder, name)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(opened)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return opened


def _open(folder: Path, name: str) -> int:
    """The lock of a GPU, for reading only: other users open it too, and nobody writes into it."""
    path = folder / f"{name}.lock"
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDONLY)
    if not folder.is_dir():
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o1777)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o644))
    return os.open(path, os.O_RDONLY)
