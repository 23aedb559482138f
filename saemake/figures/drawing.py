"""Draw any figure of the registry from the tables that it shows."""

import functools
import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import figure as mpl

from saemake import figures
from saemake.figures import style

# The columns of L0, in the order in which they are looked for.
L0 = ("sae_bench_core.l0", "dictionary_learning.l0")


def draw(name: str, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """The named figure of `rows` (see `table`). Raises SaemakeError if there is no such figure, or
    the rows have nothing that it shows. What published work warns of stands below it."""
    figure = figures.get(name)
    drawn: mpl.Figure = importlib.import_module(f"saemake.figures.{figure.kind}").draw(
        figure, rows, title
    )
    if cautions := _cautions(figure, rows):
        style.add_note(drawn, cautions)
    return drawn


def _cautions(figure: figures.Figure, rows: pd.DataFrame) -> list[str]:
    """What published work warns of in the evaluations that the figure shows."""
    evaluations = dict.fromkeys([figure.evaluation, *(of.evaluation for of in figure.panels)])
    columns = {name: f"evaluations.{name}.caution" for name in evaluations}
    return [
        f"{name}: {caution}"
        for name, column in columns.items()
        if column in rows
        for caution in rows[column].dropna().unique()
    ]


def table(name: str, paths: Iterable[Path]) -> pd.DataFrame:
    """The rows that the named figure shows, read from JSON files.

    For figures under results/: one row per SAE or checkpoint, with a column `l0`; of several
    files of an SAE, the row has the figures of all. An SAE with several ways to choose latents has
    the row of its loader's way, which comes first in its table. The baseline of all principal
    components has a row too, whose `width` is null. For figures under published/: one row per
    comparison.
    """
    content = [json.loads(path.read_text()) for path in paths]
    if figures.get(name).shows == "published":
        return pd.json_normalize(content)
    rows = pd.json_normalize(_merged(row for rows in content for row in rows))
    rows = rows[rows["width"].notna() | ((rows["architecture"] == "pca") & rows["sparsity"].isna())]
    rows = rows.drop_duplicates("name").assign(l0=_l0(rows))
    _, width = figures.split(name)
    return rows if width is None else rows[(rows["width"] == width) | rows["width"].isna()]


def _merged(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each thing and way of choosing its latents, with the figures of all its rows."""
    merged: dict[tuple[str, str | None], dict[str, Any]] = {}
    for row in rows:
        key = (row["name"], row.get("inference"))
        first = merged.setdefault(key, row)
        if first is not row:
            noise = {**first.get("noise", {}), **row.get("noise", {})}
            merged[key] = {**row, **first, "noise": noise}
    return list(merged.values())


def _l0(rows: pd.DataFrame) -> "pd.Series[Any]":
    found = [pd.to_numeric(rows[column]) for column in L0 if column in rows]
    if not found:
        return pd.Series(float("nan"), index=rows.index)
    return functools.reduce(lambda first, other: first.combine_first(other), found)


def files(name: str, paths: Iterable[Path], title: str) -> dict[str, bytes]:
    """The named figure of these tables as the content of its files, by suffix: 'pdf' and 'svg'. The
    same tables give the same bytes."""
    drawn = draw(name, table(name, paths), title)
    return {suffix: style.render(drawn, suffix) for suffix in style.METADATA}
