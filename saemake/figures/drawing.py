"""Draw any figure from the tables that it shows."""

import functools
import importlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib import figure as mpl

from saemake.base.errors import SaemakeError
from saemake.figures import Figure, style
from saemake.figures.course import in_words
from saemake.llm.hookpoint import RESID_POST

# The columns of L0, in the order in which they are looked for.
L0 = ("sae_bench_core.l0", "dictionary_learning.l0")
# What a row of a file beside the tables takes from the row of its SAE; what it may have itself.
OF_SAE = ("name", "architecture", "width", "latents", "sparsity")
OF_ROW = ("tokens", "l0")
SHOWN_WIDTHS = 4


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """The figure of `rows` (see `table`). A line below the title says which SAEs it shows. What
    published work warns of stands below the panels. Raises SaemakeError if the rows have nothing
    that it shows."""
    with matplotlib.rc_context(style.STYLE):
        whole = "\n".join([title, *_which_saes(figure, rows)])
        module = importlib.import_module(f"saemake.figures.{figure.kind}")
        drawn: mpl.Figure = module.draw(figure, rows, whole)
        if cautions := _cautions(figure, rows):
            style.add_note(drawn, cautions)
    return drawn


def _which_saes(figure: Figure, rows: pd.DataFrame) -> Iterator[str]:
    """How many SAEs a figure shows, of which widths, and how far they were trained."""
    saes = style.saes(rows)
    if saes.empty:
        return
    names = saes["name"]
    count = names.str.replace(r"/checkpoints/ae_\d+", "", regex=True).nunique()
    widths = list(dict.fromkeys(saes.sort_values("latents")["width"] if "latents" in saes else []))
    widths = widths or sorted(saes["width"].unique())
    told = f"{count} SAE{'s' * (count != 1)} of width{'s' * (len(widths) > 1)} {_listed(widths)}"
    trained = saes["tokens"].dropna() if "tokens" in saes else pd.Series(dtype=float)
    if len(trained):
        least, most = in_words(trained.min()), in_words(trained.max())
        in_course = figure.shows == "training" or figure.beside
        each = most if least == most or in_course else f"{least} to {most}"
        told += f", trained on {each} tokens"
    yield told


def _listed(widths: Sequence[str]) -> str:
    if len(widths) <= SHOWN_WIDTHS:
        return ", ".join(widths)
    return f"{widths[0]} to {widths[-1]}"


def _cautions(figure: Figure, rows: pd.DataFrame) -> list[str]:
    """What published work warns of in the evaluations that the figure shows."""
    evaluations = dict.fromkeys([figure.evaluation, *(of.evaluation for of in figure.panels)])
    columns = {name: f"evaluations.{name}.caution" for name in evaluations}
    return [
        f"{name}: {caution}"
        for name, column in columns.items()
        if column in rows
        for caution in rows[column].dropna().unique()
    ]


def table(figure: Figure, paths: Iterable[Path]) -> pd.DataFrame:
    """The rows that the figure shows, read from its tables and from what lies beside them.

    For figures under results/: one row per SAE or checkpoint, with a column `l0`; of several
    tables of an SAE, the row has the figures of all. An SAE with several ways to choose latents has
    the row of its loader's way, which comes first in its table. The baselines have rows too, whose
    `width` is null. A figure of what lies beside the tables has a row for each row of these files,
    and of the baselines none. For figures under published/: one row per comparison.
    """
    paths = list(paths)
    content = [json.loads(path.read_text()) for path in paths if path.suffix == ".json"]
    if figure.shows == "published":
        return pd.json_normalize(content)
    rows = pd.json_normalize(_merged(row for rows in content for row in rows))
    rows = rows.drop_duplicates("name").assign(l0=_l0, site=_site)
    if figure.width is not None:
        rows = rows[(rows["width"] == figure.width) | rows["width"].isna()]
    if figure.beside:
        return _beside(figure, rows, [path for path in paths if path.suffix != ".json"])
    return rows


def _beside(figure: Figure, rows: pd.DataFrame, paths: Sequence[Path]) -> pd.DataFrame:
    """The rows of a file of each SAE, with what the SAE is."""
    found = []
    for row in style.saes(rows).to_dict("records"):
        end = f"/{row['name']}/{figure.beside}"
        path = next((path for path in paths if f"/{path}".endswith(end)), None)
        if path is None:
            continue
        of_sae = _read(path, figure, row.get("inference"))
        lacking = [column for column in OF_ROW if column not in of_sae]
        more = {column: row[column] for column in (*OF_SAE, *lacking)}
        found.append(of_sae.assign(**more, sae_l0=row["l0"]))
    if not found:
        raise SaemakeError(f"no SAE has a file {figure.beside}")
    return pd.concat(found, ignore_index=True)


def _read(path: Path, figure: Figure, inference: str | None) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path)
    latents = pd.read_parquet(path, columns=["inference", figure.x])
    if isinstance(inference, str):
        latents = latents[latents["inference"] == inference]
    return latents.drop(columns="inference")


def _merged(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each thing and way of choosing its latents, with the figures of all its rows."""
    merged: dict[tuple[str, str | None], dict[str, Any]] = {}
    for row in rows:
        key = (row["name"], row.get("inference"))
        first = merged.setdefault(key, row)
        if first is not row:
            both = {
                section: {**(first.get(section) or {}), **(row.get(section) or {})}
                for section in ("noise", "evaluations")
            }
            merged[key] = {**row, **first, **both}
    return list(merged.values())


def _l0(rows: pd.DataFrame) -> "pd.Series[Any]":
    found = [pd.to_numeric(rows[column]) for column in L0 if column in rows]
    if not found:
        return pd.Series(float("nan"), index=rows.index)
    return functools.reduce(lambda first, other: first.combine_first(other), found)


def _site(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Rows of the residual stream after a block do not say so."""
    said = rows["site"] if "site" in rows else pd.Series(None, index=rows.index, dtype=object)
    return said.fillna(RESID_POST)


def files(figure: Figure, paths: Iterable[Path], title: str) -> dict[str, bytes]:
    """The figure of these tables as the content of its files, by suffix: 'pdf' and 'svg'. The same
    tables give the same bytes."""
    drawn = draw(figure, table(figure, paths), title)
    return {suffix: style.render(drawn, suffix) for suffix in style.METADATA}
