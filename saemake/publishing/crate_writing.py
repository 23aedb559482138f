"""Writes a crate as a folder or a zip file, whole or not at all."""

import contextlib
import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from saemake.base.errors import SaemakeError, build_again
from saemake.base.store import disk_fault
from saemake.publishing.crate import Crate, Item

ZIP = ".zip"
PIECE_BYTES = 2**22
# The first time that a zip file can tell.
TIME = (1980, 1, 1, 0, 0, 0)
READABLE = 0o644


def write(crate: Crate, place: Path) -> None:
    """Write a crate to `place`: a zip file if its name ends so, else a folder. It is written beside
    its place and renamed into it.

    Raises SaemakeError if something is there, a file is not as its record says, or the disk is full
    or forbidden.
    """
    check_place(place)
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix == ZIP:
            _write_zip(crate, temporary)
        else:
            _write_folder(crate, temporary)
        temporary.rename(place)
    except OSError as error:
        raise disk_fault(error, place) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink() if place.suffix == ZIP else shutil.rmtree(temporary)


def check_place(place: Path) -> None:
    """Raise SaemakeError if a crate cannot get this place."""
    if place.exists() or place.is_symlink():
        raise SaemakeError(f"{place} is there already; delete it, or name another place")


def _write_folder(crate: Crate, folder: Path) -> None:
    for path, item in crate.items.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as target:
            _copy(path, item, target)


def _write_zip(crate: Crate, file: Path) -> None:
    # Not compressed: weights hardly shrink, and the bytes would depend on zlib's version.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path, item in crate.items.items():
            entry = zipfile.ZipInfo(path, TIME)
            entry.create_system, entry.external_attr = 3, READABLE << 16
            entry.file_size = item.size  # more than 2 GiB need another format of the entry
            with archive.open(entry, "w") as target:
                _copy(path, item, target)


def _copy(path: str, item: Item, target: IO[bytes]) -> None:
    """Raises SaemakeError if the copied bytes have another sha256 than the item's."""
    sum_ = hashlib.sha256()
    for piece in _pieces(item.content):
        sum_.update(piece)
        target.write(piece)
    if sum_.hexdigest() != item.sha256:
        raise SaemakeError(
            f"{path} is damaged or edited: its sha256 is {sum_.hexdigest()[:16]}..., its job wrote"
            f" {item.sha256[:16]}...; {build_again(path)}"
        )


def _pieces(content: Path | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as source:
        while piece := source.read(PIECE_BYTES):
            yield piece
