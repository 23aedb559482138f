"""Rebuilt SAEs beside published ones, by SAE Bench's evaluations: a panel each, against L0."""

import pandas as pd
from matplotlib import figure as mpl
from matplotlib.axes import Axes

from saemake.base.errors import SaemakeError
from saemake.figures import Figure, Panel, style

# The sides of a comparison, in the order in which they are drawn: its key there, its dash, whether
# its markers are hollow, and its name in the legend. The files are other measurements of the
# published SAEs.
SIDES = (
    ("rebuilt", "solid", False, "rebuilt"),
    ("published", "solid", True, "published, judged here"),
    ("file", (0, (1, 1)), True, "published results"),
)
NOT_COMPARABLE = "not_comparable"


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A panel for each evaluation that a comparison of `rows` has, one row per SAE. Results whose
    definition has changed since are left out."""
    panels = [panel for panel in figure.panels if _column(panel, "file") in rows]
    if not panels:
        raise SaemakeError(
            "no comparison has published results of SAE Bench; add its evaluations to"
            " models.<name>.suite.evaluations, and see published.results"
        )
    drawn, all_axes = style.grid(style.two_columns(len(panels)), 9, 2.1)
    for axes, panel in zip(all_axes, panels, strict=True):
        for side, dash, hollow, _ in SIDES:
            _draw_side(axes, rows, panel, side, dash, hollow)
        style.l0_axis(axes)
        axes.set_title(panel.label, fontsize="medium")
    keys = [style.key(name) for name in sorted(rows["architecture"].unique())]
    for _, dash, hollow, label in SIDES:
        face = "white" if hollow else style.GREY
        keys.append(style.grey_key(label, linestyle=dash, marker="o", markerfacecolor=face))
    style.finish_grid(drawn, title, style.L0_LABEL, keys)
    return drawn


def _column(panel: Panel, side: str) -> str:
    return f"sae_bench.figures.{panel.column}.{side}"


def _draw_side(
    axes: Axes, rows: pd.DataFrame, panel: Panel, side: str, dash: object, hollow: bool
) -> None:
    if (column := _column(panel, side)) not in rows:
        return
    if side == "file" and (told := _column(panel, NOT_COMPARABLE)) in rows:
        rows = rows[rows[told].isna()]
    of = "rebuilt" if side == "rebuilt" else "published"
    values = pd.to_numeric(rows[column])
    shown = rows[["architecture", "width"]].assign(
        l0=pd.to_numeric(rows[f"figures.sae_bench_core.l0.{of}"]),
        value=1 - values if panel.flipped else values,
    )
    lines = shown.dropna(subset=["l0", "value"]).sort_values("l0")
    for (architecture, _), line in lines.groupby(["architecture", "width"]):
        style.draw_line(
            axes, line["l0"], line["value"], str(architecture), dash=dash, hollow=hollow
        )
