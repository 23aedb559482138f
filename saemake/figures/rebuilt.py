"""Rebuilt SAEs beside published ones: loss recovered against L0, by both evaluations."""

import pandas as pd
from matplotlib import figure as mpl

from saemake.figures import Figure, style

# The title of each evaluation's panel.
PANELS = {
    "sae_bench_core": "SAE Bench core",
    "dictionary_learning": "dictionary_learning",
}
# The column of a comparison that has each side's numbers, and whether its markers are hollow.
SIDES = {"rebuilt": ("rebuilt", False), "published": ("catalogue", True)}


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """One panel per evaluation of `rows`, one row per SAE. Widths differ in their dashes; markers
    of published SAEs are hollow."""
    drawn, panels = style.grid(style.two_columns(len(PANELS)), 7.5, 2.8)
    dashes = style.dashes(rows["width"].unique())
    for axes, (evaluation, label) in zip(panels, PANELS.items(), strict=True):
        for column, hollow in SIDES.values():
            points = _points(rows, evaluation, column)
            for (architecture, width), line in points.groupby(["architecture", "width"]):
                style.draw_line(
                    axes,
                    line["l0"],
                    line["loss_recovered"],
                    str(architecture),
                    dash=dashes[width],
                    hollow=hollow,
                )
        style.l0_axis(axes)
        axes.set(title=label, ylabel=figure.label)
    style.finish_grid(drawn, title, style.L0_LABEL, _keys(rows, dashes))
    return drawn


def _points(rows: pd.DataFrame, evaluation: str, column: str) -> pd.DataFrame:
    """L0 and loss recovered of one side, sorted by L0; SAEs without them are left out."""
    numbers = {
        name: pd.to_numeric(rows[f"figures.{evaluation}.{name}.{column}"])
        for name in ("l0", "loss_recovered")
    }
    points = rows[["architecture", "width"]].assign(**numbers)
    return points.dropna(subset=["l0", "loss_recovered"]).sort_values("l0")


def _keys(rows: pd.DataFrame, dashes: dict) -> list:
    keys = [style.key(name) for name in sorted(rows["architecture"].unique())]
    keys += [style.grey_key(width, linestyle=dash) for width, dash in dashes.items()]
    for side, (_, hollow) in SIDES.items():
        face = "white" if hollow else style.GREY
        keys.append(style.grey_key(side, linestyle="", marker="o", markerfacecolor=face))
    return keys
