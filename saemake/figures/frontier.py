"""Frontier figures: a quality against L0, one line for each architecture and width."""

import pandas as pd
from matplotlib import figure as mpl
from matplotlib.lines import Line2D

from saemake.figures import Figure, Panel, style


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """The frontier of `rows`, one row per SAE. Widths differ in their dashes, or have a panel each.
    A quality that was measured from several seeds has bars of a standard deviation. Grey lines show
    the baselines: PCA with as many components as L0, all components, and the identity."""
    panel = figure.panels[0] if figure.panels else Panel(figure.y, figure.label)
    if figure.x in rows:
        rows = rows.assign(l0=pd.to_numeric(rows[figure.x]).combine_first(rows["l0"]))
    saes = style.with_l0(rows)
    style.shown([panel], saes)
    by_width = figure.by == "width"
    widths = style.by_size(saes)
    several = by_width and len(widths) > 1
    counts = style.in_rows(len(widths)) if several else [1]
    drawn, all_axes = style.grid(counts, 7.5 if several else 5, 2.5 if several else 3.2)
    dashes = {} if by_width else style.dashes(widths)
    baselines: dict[str, Line2D] = {}
    for place, axes in enumerate(all_axes):
        shown = saes[saes["width"] == widths[place]] if by_width else saes
        baselines |= style.draw_baselines(axes, rows, panel)
        style.draw_against_l0(axes, shown, panel, dashes)
        if by_width:
            axes.set_title(widths[place], fontsize="medium")
        axes.set_ylabel(figure.label)
    style.share_y(all_axes)
    keys = style.architecture_keys(saes, [panel])
    if len(dashes) > 1:
        keys += style.width_keys(dashes)
    style.finish_grid(drawn, title, style.L0_LABEL, [*keys, *baselines.values()])
    return drawn
