"""A figure of the config's `figures`: any columns, colours and panels."""

import itertools
from typing import Any

import pandas as pd
from matplotlib import figure as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from saemake.base.errors import SaemakeError
from saemake.figures import Figure, Panel, label_of, palette, style
from saemake.llm.hookpoint import Hookpoint

# Axes on which a value is shown by its magnitude.
LOGARITHMIC = {"tokens", "latents"}
# What an SAE's line has in common, besides its colour and its panel.
PLACE = ("model", "layer", "site")
SWEEP = (*PLACE, "architecture", "width")


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A panel for each column of `figure.panels`, and for each value of the column `figure.by`. A
    line is a sweep; its colour is its `figure.hue`. Lines of one colour differ in their dashes.
    SAEs that differ in their seed alone are one point, the mean, with a bar of a standard
    deviation. The baselines are grey lines where a panel has one site of one model. Panels of one
    column share their y axis."""
    saes = style.with_l0(rows) if figure.x == "l0" else style.saes(rows)
    columns = style.shown(figure.panels, saes)
    if figure.x not in saes or saes[figure.x].isna().all():
        raise SaemakeError(f"no SAE of the figure has a value of {figure.x}, its x")
    values = sorted(saes[figure.by].unique(), key=_order(saes, figure.by)) if figure.by else [None]
    places = list(itertools.product(values, columns))
    width = 5 if len(places) == 1 else 7.5
    counts = [1] if len(places) == 1 else style.in_rows(len(places), _columns(figure, columns))
    drawn, all_axes = style.grid(counts, width, 3.2 if len(places) == 1 else 2.3)
    marks = _marks(saes, figure.hue)
    varying = _varying(saes, figure)
    dashes = style.dashes(_names(saes, varying))
    keys: dict[str, Line2D] = {}
    placed = list(zip(all_axes, places, strict=True))
    for axes, (value, panel) in placed:
        shown = saes if value is None else saes[saes[figure.by] == value]
        if figure.x == "l0" and len(places_shown := shown[[*PLACE]].drop_duplicates()) == 1:
            beside = _baselines(rows, *places_shown.iloc[0])
            keys |= style.draw_baselines(axes, pd.concat([shown, beside]), panel)
        keys = _draw_lines(axes, shown, panel, figure, marks, varying, dashes) | keys
        _x_axis(axes, figure.x)
        axes.set_ylabel(panel.label)
        if value is not None:
            axes.set_title(f"{figure.by} {value}", fontsize="medium")
    for panel in columns:
        style.share_y([axes for axes, (_, shown_in) in placed if shown_in is panel])
    style.finish_grid(drawn, title, label_of(figure.x), list(keys.values()))
    return drawn


def _baselines(rows: pd.DataFrame, model: str, layer: int, site: str) -> pd.DataFrame:
    """The rows of the baselines of a site, or of the site that transcoders write."""
    target = Hookpoint.at(layer, site).target
    same = (rows["model"] == model) & (rows["layer"] == layer) & (rows["site"] == target.site)
    return rows[same & rows["width"].isna()]


def _columns(figure: Figure, columns: list[Panel]) -> int:
    """How many panels are side by side: those of one value, if there are few of them."""
    return len(columns) if figure.by and 1 < len(columns) <= 3 else 2


def _order(saes: pd.DataFrame, column: str) -> Any:
    """How the values of a column are sorted: widths by size, sparsities by their parameter and its
    value, others as they are."""
    if column == "sparsity":
        return lambda name: (name.rpartition("_")[0], float(name.rpartition("_")[2]))
    if column == "width":
        sizes = saes.groupby("width")["latents"].first()
        return lambda value: sizes[value]
    return lambda value: value


def _marks(saes: pd.DataFrame, hue: str) -> dict[Any, palette.Mark]:
    """The colour and marker of each value of `hue`: an architecture has its own."""
    values = sorted(saes[hue].unique(), key=_order(saes, hue))
    if hue == "architecture":
        return {value: palette.mark(str(value)) for value in values}
    return {
        value: palette.Mark(
            palette.COLOURS[place % len(palette.COLOURS)],
            palette.MARKERS[place % len(palette.MARKERS)],
        )
        for place, value in enumerate(values)
    }


def _varying(saes: pd.DataFrame, figure: Figure) -> list[str]:
    """What tells lines of one colour apart: a sweep's parts that differ, but not along the x axis.
    Where that runs over sweeps, a line has one sparsity."""
    along = {"layer": {"layer"}, "latents": {"width"}}.get(figure.x, set())
    parts = [*SWEEP, "sparsity"] if along else SWEEP
    seen = {figure.hue, figure.by, *along}
    return [name for name in parts if name not in seen and saes[name].nunique() > 1]


def _names(saes: pd.DataFrame, varying: list[str]) -> list[tuple[Any, ...]]:
    """The lines of one colour, by what tells them apart, in their order."""
    rows = saes[varying].drop_duplicates().sort_values(varying) if varying else saes[[]].head(1)
    return [tuple(row) for row in rows.itertuples(index=False)]


def _draw_lines(
    axes: Axes,
    saes: pd.DataFrame,
    panel: Panel,
    figure: Figure,
    marks: dict[Any, palette.Mark],
    varying: list[str],
    dashes: dict[Any, Any],
) -> dict[str, Line2D]:
    """Returns the legend's entries by their labels."""
    points = _means(style.points(saes, panel, figure.x), panel.column, figure.x)
    keys = {}
    by_hue = dict(iter(points.groupby(figure.hue)))
    for hue in (each for each in marks if each in by_hue):
        of_hue = by_hue[hue]
        lines = of_hue.groupby(varying, sort=True) if varying else [((), of_hue)]
        for names, line in lines:
            line = line.sort_values(figure.x)
            label = " ".join([_named(figure.hue, hue), *map(str, names)])
            drawn = style.draw_marked(
                axes, line[figure.x], line[panel.column], marks[hue], dash=dashes[tuple(names)]
            )
            style.draw_bars(axes, line[figure.x], line[panel.column], line["bar"], marks[hue])
            keys[label] = style.as_key(drawn, label)
    return keys


def _named(hue: str, value: Any) -> str:
    return str(value) if hue in ("architecture", "model") else f"{hue} {value}"


def _means(points: pd.DataFrame, column: str, x: str) -> pd.DataFrame:
    """One row for all seeds of an SAE, with the standard deviation as `bar`; of a single SAE the
    spread of its evaluation over seeds, if there is one."""
    noise = f"noise.{column}.standard_deviation"
    points = points.assign(noise=pd.to_numeric(points[noise]) if noise in points else float("nan"))
    parts = [*SWEEP, "sparsity"]
    keep = {} if x in (*parts, "latents", column) else {x: (x, "mean")}
    found = points.groupby(parts, sort=False, as_index=False).agg(
        **keep,
        **{
            column: (column, "mean"),
            "spread": (column, "std"),
            "noise": ("noise", "first"),
            "latents": ("latents", "first"),
        },
    )
    return found.assign(bar=found["spread"].combine_first(found["noise"]))


def _x_axis(axes: Axes, x: str) -> None:
    if x == "l0" or x.endswith(".l0"):
        style.l0_axis(axes)
    elif x in LOGARITHMIC:
        axes.set_xscale("log")
