"""Draw any figure of the registry from the tables that it shows."""

import importlib
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib import figure as mpl

from saemake import figures
from saemake.figures import style


def draw(name: str, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """The named figure of `rows` (see `table`). Raises SaemakeError if there is no such figure."""
    figure = figures.get(name)
    drawn: mpl.Figure = importlib.import_module(f"saemake.figures.{figure.kind}").draw(
        figure, rows, title
    )
    return drawn


def table(name: str, paths: Iterable[Path]) -> pd.DataFrame:
    """The rows that the named figure shows, read from JSON files.

    For figures under results/: one row per SAE or checkpoint, without the baselines. An SAE with
    several ways to choose latents has the row of its loader's way, which comes first in its table.
    For figures under published/: one row per comparison.
    """
    content = [json.loads(path.read_text()) for path in paths]
    if figures.get(name).shows == "published":
        return pd.json_normalize(content)
    rows = pd.json_normalize([row for rows in content for row in rows])
    return rows[rows["width"].notna()].drop_duplicates("name")


def files(name: str, paths: Iterable[Path], title: str) -> dict[str, bytes]:
    """The named figure of these tables as the content of its files, by suffix: 'pdf' and 'svg'. The
    same tables give the same bytes."""
    drawn = draw(name, table(name, paths), title)
    return {suffix: style.render(drawn, suffix) for suffix in style.METADATA}
