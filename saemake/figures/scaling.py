"""How SAE Bench's evaluations change with the number of latents."""

import pandas as pd
from matplotlib import figure as mpl

from saemake.figures import Figure, style

# The range of L0 over which the paper takes means, ends included.
SMALLEST_L0, LARGEST_L0 = 40, 200


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A panel for each evaluation of `rows`, one row per SAE. It shows the mean over the SAEs of an
    architecture and a number of latents whose L0 is in the range; over all if no SAE is in it."""
    saes = style.saes(rows)
    columns = [panel.column for panel in style.shown(figure.panels, saes)]
    saes, averaged = _in_range(saes.dropna(subset=columns, how="all"))
    panels = style.shown(figure.panels, saes)
    drawn, all_axes = style.grid(style.two_columns(len(panels)), 7.5, 2.2)
    names = saes.groupby("latents")["width"].first()
    for axes, panel in zip(all_axes, panels, strict=True):
        points = style.points(saes, panel, "latents")
        for architecture, line in points.groupby("architecture", sort=True):
            means = line.groupby("latents", as_index=False)[panel.column].mean()
            style.draw_line(axes, means["latents"], means[panel.column], str(architecture))
        axes.set_xscale("log", base=2)
        axes.set_xticks(names.index, names)
        axes.minorticks_off()
        axes.set_title(panel.label, fontsize="medium")
    label = f"latents (mean over SAEs of {averaged})"
    style.finish_grid(drawn, title, label, style.architecture_keys(saes, panels))
    return drawn


def _in_range(saes: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The SAEs whose L0 is in the range, or all if none is; and which they are, in words."""
    found = saes[saes["l0"].between(SMALLEST_L0, LARGEST_L0)]
    if found.empty:
        return saes, "all L0"
    return found, f"L0 {SMALLEST_L0} to {LARGEST_L0}"
