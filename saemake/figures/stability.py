"""How much of an SAE recurs in other seeds, against L0."""

from typing import Any

import pandas as pd
from matplotlib import figure as mpl
from matplotlib.axes import Axes

from saemake.figures import Figure, Panel, palette, style


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A panel for each of the figure's columns of `rows`, one row per pair of seeds. A line is an
    architecture and a width. A point is the mean over the pairs of an SAE's seeds; its bar goes
    from the smallest to the largest of them."""
    saes = style.with_l0(rows)
    panels = style.shown(figure.panels, saes)
    drawn, all_axes = style.grid(style.two_columns(len(panels)), 7.5, 2.1)
    widths = style.by_size(saes)
    dashes = style.dashes(widths)
    for axes, panel in zip(all_axes, panels, strict=True):
        points = style.points(saes, panel, "l0")
        for (architecture, width), line in points.groupby(["architecture", "width"], sort=True):
            _draw_line(axes, line, panel, str(architecture), dashes[width])
        axes.set_ylim(bottom=0)
        style.l0_axis(axes)
        axes.set_title(panel.label, fontsize="medium")
    keys = style.architecture_keys(saes, panels)
    if len(widths) > 1:
        keys += style.width_keys(dashes)
    style.finish_grid(drawn, title, style.L0_LABEL, keys)
    return drawn


def _draw_line(axes: Axes, pairs: pd.DataFrame, panel: Panel, architecture: str, dash: str) -> None:
    by_sae = pairs.groupby("name")
    found = by_sae[panel.column].agg(["mean", "min", "max"]).assign(l0=by_sae["l0"].mean())
    found = found.sort_values("l0")
    style.draw_line(axes, found["l0"], found["mean"], architecture, dash=dash)
    if (found["min"] == found["max"]).all():  # a single pair
        return
    below, above = found["mean"] - found["min"], found["max"] - found["mean"]
    colour = palette.mark(architecture).colour
    bars: dict[str, Any] = {"color": colour, "linestyle": "", "capsize": 2, "linewidth": 1}
    axes.errorbar(found["l0"], found["mean"], yerr=[below, above], **bars)
