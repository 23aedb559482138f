"""`saemake.sweep`: tables of SAEs."""

import glob
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from saemake.base.errors import SaemakeError, first_line
from saemake.llm.hookpoint import RESID_POST
from saemake.paths.names import METRICS

# Of a row of metrics.json: what an evaluation was made with. A tidy table is about figures.
CIRCUMSTANCES = "evaluations."


def sweep(places: Iterable[str | os.PathLike[str]]) -> pd.DataFrame:
    """`saemake.sweep`, which documents it."""
    rows = [row for place in places for file in _tables(place) for row in _read(file)]
    # Sweeps of one site have the same baselines. SAEs of one name may be of two projects.
    table = pd.json_normalize(list({json.dumps(row): row for row in rows}.values()))
    if "site" in table:  # rows of the residual stream after a block do not say so
        table["site"] = table["site"].fillna(RESID_POST)
    return table[[column for column in table if not str(column).startswith(CIRCUMSTANCES)]]


def _tables(place: str | os.PathLike[str]) -> Iterator[Path]:
    """The metrics.json of a place: a file, or a folder that has one. A place may have wildcards."""
    matches = sorted(glob.glob(str(place)))  # noqa: PTH207 (a pattern from another folder too)
    if not matches:
        raise SaemakeError(f"{place}: no such file or folder; build it, `saemake build {place}`")
    for match in matches:
        path = Path(match)
        file = path / METRICS if path.is_dir() else path
        if not file.is_file():
            raise SaemakeError(
                f"{path}: it has no {METRICS}; name the folder of a sweep or an SAE, and build it:"
                f" `saemake build {path}`"
            )
        yield file


def _read(file: Path) -> list[dict[str, object]]:
    try:
        rows = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SaemakeError(f"{file}: cannot be read ({first_line(error)})") from None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and "name" in row and "inference" in row for row in rows
    ):
        raise SaemakeError(f"{file}: not a table of SAEs; name a sweep or a metrics.json")
    return rows
