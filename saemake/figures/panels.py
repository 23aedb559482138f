"""SAE Bench's evaluations of one width, each against L0 in a panel of its own."""

import pandas as pd
from matplotlib import figure as mpl
from matplotlib.axes import Axes

from saemake.figures import Figure, Panel, style

PCA_DASHES = "--"


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A panel for each evaluation of `rows`, one row per SAE. PCA, whose L0 is no choice, is a
    dashed line across the panel."""
    saes = style.with_l0(rows)
    panels = style.shown(figure.panels, saes)
    drawn, all_axes = style.grid(style.two_columns(len(panels)), 7.5, 2.1)
    pca_lines = 0
    for axes, panel in zip(all_axes, panels, strict=True):
        style.draw_against_l0(axes, saes, panel)
        pca_lines += _draw_pca(axes, rows, panel)
        axes.set_title(panel.label, fontsize="medium")
    keys = style.keys(saes)
    if pca_lines:
        keys.append(style.grey_key("PCA, all components", linestyle=PCA_DASHES))
    width = saes["width"].iloc[0]
    style.finish_grid(drawn, f"{title}, width {width}", style.L0_LABEL, keys)
    return drawn


def _draw_pca(axes: Axes, rows: pd.DataFrame, panel: Panel) -> int:
    """Draw PCA's value, if there is one. Returns how many lines it drew."""
    pca = style.points(rows[rows["width"].isna()], panel, "name")
    if not pca.empty:
        value = pca[panel.column].iloc[0]
        axes.axhline(value, color=style.GREY, linestyle=PCA_DASHES, linewidth=1.5)
    return min(len(pca), 1)
