"""Evaluations of a suite, each against L0 in a panel of its own."""

import pandas as pd
from matplotlib import figure as mpl
from matplotlib.lines import Line2D

from saemake.figures import Figure, style


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A panel for each evaluation of `rows`, one row per SAE, with the baselines in grey. Widths
    differ in their dashes."""
    saes = style.with_l0(rows)
    panels = style.shown(figure.panels, saes)
    drawn, all_axes = style.grid(style.two_columns(len(panels)), 7.5, 2.1)
    widths = style.by_size(saes)
    dashes = style.dashes(widths)
    baselines: dict[str, Line2D] = {}
    for axes, panel in zip(all_axes, panels, strict=True):
        baselines |= style.draw_baselines(axes, rows, panel)
        style.draw_against_l0(axes, saes, panel, dashes)
        axes.set_title(panel.label, fontsize="medium")
    keys = style.architecture_keys(saes, panels)
    if len(widths) > 1:
        keys += style.width_keys(dashes)
    style.finish_grid(drawn, title, style.L0_LABEL, [*keys, *baselines.values()])
    return drawn
