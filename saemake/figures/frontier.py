"""Frontier figures: a quality against L0, one line for each architecture and width."""

import pandas as pd
from matplotlib import figure as mpl

from saemake.figures import Figure, Panel, style


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """The frontier of `rows`, one row per SAE. Widths differ in their dashes. A quality that was
    measured from several seeds has bars of a standard deviation."""
    drawn, (axes,) = style.canvas(7.5, 4)
    rows = style.saes(rows)
    if figure.x == "l0":
        rows = style.with_l0(rows)
        style.shown([Panel(figure.y, figure.label)], rows)
    dashes = style.dashes(rows["width"].unique())
    for (architecture, width), line in rows.groupby(["architecture", "width"], sort=True):
        line = line.sort_values(figure.x)
        style.draw_line(axes, line[figure.x], line[figure.y], str(architecture), dash=dashes[width])
        style.error_bars(axes, line, figure.x, figure.y, str(architecture))
    keys = [style.key(name) for name in sorted(rows["architecture"].unique())]
    if len(dashes) > 1:
        keys += [style.grey_key(width, linestyle=dash) for width, dash in dashes.items()]
    style.l0_axis(axes)
    axes.set(title=title, ylabel=figure.label)
    style.finish(axes, keys)
    return drawn
