"""Records: what each file under results/, hub/, published/ and so on was made from.

    results/.store/made/<path of the file>.json

A job writes one for each of its outputs when it ends: the sha256 of the output and of every input,
and the recipes that the output was made by. They lie in the store, since Snakemake deletes outputs
and a folder laid out for others shall hold nothing else.
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
    """The record of one file. `recipes` are by the name of what each is of, such as an SAE (see
    asked.recipes_of). `job` has the hashes of all that its job had a recipe of, by name."""

    sha256: str
    inputs: dict[str, str]
    recipes: dict[str, By]
    job: dict[str, str]


def path_of(path: str) -> Path:
    """Where the record of a file lies."""
    return FOLDER / f"{path}.json"


def read(path: str) -> Made | None:
    """The record of a file; None where there is none, or it is damaged."""
    try:
        return Made.model_validate_json(path_of(path).read_bytes())
    except (OSError, ValidationError):
        return None


def write(path: str, record: Made) -> None:
    """Record how a file was made. Appears whole or not at all."""
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
    """sha256 of each file that is there."""
    return {path: sha256(Path(path)) for path in paths if Path(path).is_file()}


def sweep() -> None:
    """Remove the records of files that are gone, and what a kill left of records."""
    for left in FOLDER.rglob(".*.json.*") if FOLDER.is_dir() else ():
        left.unlink(missing_ok=True)
    for record in list(_records()):
        if not Path(str(record.relative_to(FOLDER)).removesuffix(".json")).exists():
            record.unlink(missing_ok=True)


def _records() -> Iterator[Path]:
    return FOLDER.rglob("*.json") if FOLDER.is_dir() else iter(())
