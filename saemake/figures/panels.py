"""SAE Bench's evaluations of one width, each against L0 in a panel of its own."""

import pandas as pd
from matplotlib import figure as mpl
from matplotlib.axes import Axes

from saemake.figures import Figure, Panel, style

PCA_DASHES = "--"


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A panel for each evaluation of `rows`, one row per SAE. PCA is a dashed line across the
    panel: nobody chooses its L0."""
    saes = style.with_l0(rows)
    panels = style.shown(figure.panels, saes)
    drawn, all_axes = style.grid(style.two_columns(len(panels)), 7.5, 2.1)
    has_pca = False
    for axes, panel in zip(all_axes, panels, strict=True):
        style.draw_against_l0(axes, saes, panel)
        has_pca |= _draw_pca(axes, rows, panel)
        axes.set_title(panel.label, fontsize="medium")
    keys = style.architecture_keys(saes, panels)
    if has_pca:
        keys.append(style.grey_key("PCA, all components", linestyle=PCA_DASHES))
    style.finish_grid(drawn, style.with_width(title, saes), style.L0_LABEL, keys)
    return drawn


def _draw_pca(axes: Axes, rows: pd.DataFrame, panel: Panel) -> bool:
    """Draw PCA's value, if there is one. Returns whether there is."""
    pca = style.points(rows[rows["width"].isna()], panel, "name")
    if not pca.empty:
        value = pca[panel.column].iloc[0]
        axes.axhline(value, color=style.GREY, linestyle=PCA_DASHES, linewidth=1.5)
    return not pca.empty
