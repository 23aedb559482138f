"""An evaluation of one width at several numbers of latents, each against L0."""

import itertools

import pandas as pd
from matplotlib import figure as mpl

from saemake.figures import Figure, style


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A row of panels for each evaluation of `rows`, one row per SAE; a panel for each number of
    latents."""
    saes = style.with_l0(rows)
    panels = style.shown(figure.panels, saes)
    groups = itertools.groupby(panels, key=lambda panel: panel.evaluation)
    drawn, all_axes = style.grid([len(list(group)) for _, group in groups], 14, 2.4)
    for axes, panel in zip(all_axes, panels, strict=True):
        style.draw_against_l0(axes, saes, panel)
        axes.set_title(panel.label, fontsize="medium")
    keys = style.architecture_keys(saes, panels)
    style.finish_grid(drawn, title, style.L0_LABEL, keys)
    return drawn
