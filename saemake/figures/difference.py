"""What more latents change in SAE Bench's evaluations: the widest SAEs against the next ones."""

import pandas as pd
from matplotlib import figure as mpl

from saemake.base.errors import SaemakeError
from saemake.figures import Figure, Panel, style

# Ends the names of the columns of the narrower SAE.
NARROW = " narrow"


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A panel for each evaluation of `rows`, one row per SAE. It shows the figure of the widest SAE
    minus that of the next narrower with the same sparsity, against the L0 of the widest."""
    saes = style.with_l0(rows)
    wide, narrow = _widths(saes)
    differences = _differences(figure.panels, _pairs(saes, wide, narrow))
    panels = style.shown(figure.panels, differences)
    drawn, all_axes = style.grid(style.two_columns(len(panels)), 7.5, 2.2)
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.axhline(0, color=style.GREY, linewidth=1.5)
        points = differences.dropna(subset=[panel.column]).sort_values("l0")
        for architecture, line in points.groupby("architecture", sort=True):
            style.draw_line(axes, line["l0"], line[panel.column], str(architecture))
        style.l0_axis(axes)
        axes.set(ylabel=f"{wide} minus {narrow}")
        axes.set_title(panel.label, fontsize="medium")
    keys = style.architecture_keys(differences, panels)
    style.finish_grid(drawn, title, f"L0 of the {wide} SAE", keys)
    return drawn


def _widths(saes: pd.DataFrame) -> tuple[str, str]:
    """The names of the widest width and the next. Raises SaemakeError if there is one only."""
    names = list(saes.sort_values("latents", ascending=False)["width"].unique())
    if len(names) < 2:
        raise SaemakeError(
            f"a difference needs two widths, and the suite has {names[0]} only; add one to"
            " models.<name>.suite.widths"
        )
    return names[0], names[1]


def _pairs(saes: pd.DataFrame, wide: str, narrow: str) -> pd.DataFrame:
    """A row for each wide SAE and the narrow one of the same architecture, sparsity and seed.
    Raises SaemakeError if there is none."""
    same = [name for name in ("architecture", "sparsity", "seed") if name in saes]
    wide_ones, narrow_ones = (saes[saes["width"] == width] for width in (wide, narrow))
    pairs = wide_ones.merge(narrow_ones, on=same, suffixes=("", NARROW))
    if pairs.empty:
        raise SaemakeError(
            f"no SAE of {wide} has the architecture and the sparsity of one of {narrow}; list the"
            " same sweep for both"
        )
    return pairs


def _differences(panels: tuple[Panel, ...], pairs: pd.DataFrame) -> pd.DataFrame:
    """Architecture and L0 of the pairs, and the difference in each panel's column, if there is
    one."""
    found = {
        panel.column: _values(pairs, panel) - _values(pairs, panel, NARROW)
        for panel in panels
        if panel.column in pairs
    }
    return pairs[["architecture", "l0"]].assign(**found)


def _values(pairs: pd.DataFrame, panel: Panel, side: str = "") -> "pd.Series[float]":
    values = pd.to_numeric(pairs[panel.column + side])
    return 1 - values if panel.flipped else values
