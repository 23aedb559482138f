"""Records: what each file under results/, hub/, published/ and so on was made from.

    results/.store/made/<path of the file>.json

When a job ends, it writes a record for each of its outputs: the sha256 of the output and of every
input, and the recipes that made the output. Records are in the store, because Snakemake deletes
outputs, and because folders under hub/ must hold nothing but published files.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from saemake.base.sections import Closed
from saemake.base.store import disk_fault, sha256
from saemake.paths.names import STORE

FOLDER = STORE / "made"


class By(Closed):
    """A recipe as JSON, and its hash."""

    hash: str
    recipe: Any


class Made(Closed):
    """The record of one file. `recipes` has the file's recipes by name (see asked.recipes_of),
    `job` the hashes of all recipes of its job, by name. `inputs` has a sha256 by path."""

    sha256: str
    inputs: dict[str, str]
    recipes: dict[str, By]
    job: dict[str, str]


def path_of(path: str) -> Path:
    """The path of a file's record."""
    return FOLDER / f"{path}.json"


def read(path: str) -> Made | None:
    """The record of a file. None if there is none, or it is damaged."""
    try:
        return Made.model_validate_json(path_of(path).read_bytes())
    except (OSError, ValidationError):
        return None


def write(path: str, record: Made) -> None:
    """Write a file's record atomically. Raises SaemakeError if the disk is full or forbidden."""
    place = path_of(path)
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(record.model_dump(), sort_keys=True) + "\n")
        temporary.replace(place)
    except OSError as error:
        raise disk_fault(error, place) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sums(paths: Iterable[str]) -> dict[str, str]:
    """sha256 of each file that exists, by path."""
    return {path: sha256(Path(path)) for path in paths if Path(path).is_file()}


def sweep() -> None:
    """Remove the records of files that are gone, and unfinished records that a kill left."""
    for unfinished in FOLDER.rglob(".*.json.*") if FOLDER.is_dir() else ():
        unfinished.unlink(missing_ok=True)
    for record in list(_records()):
        if not Path(str(record.relative_to(FOLDER)).removesuffix(".json")).exists():
            record.unlink(missing_ok=True)


def _records() -> Iterator[Path]:
    return FOLDER.rglob("*.json") if FOLDER.is_dir() else iter(())
