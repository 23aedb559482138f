"""The style that all figures share: an architecture has its colour and marker, a width its line."""

import io
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from saemake.figures import palette

# The bytes of a figure depend on its data only: no date, no random ids.
METADATA = {"pdf": {"CreationDate": None, "Creator": None}, "svg": {"Date": None, "Creator": None}}
STYLE: dict[Any, Any] = {"svg.hashsalt": "saemake", "pdf.fonttype": 42, "svg.fonttype": "path"}
# Dashes of the first width (or SAE), the second, and so on: on and off, in line widths.
DASHES = (
    "solid",
    (0, (4, 1.5)),
    (0, (1, 1)),
    (0, (3, 1.25, 1.5, 1.25)),
    (0, (5, 1, 1, 1)),
    (0, (7, 2)),
    (0, (5, 1, 2, 1, 2, 1)),
    (0, (1, 3)),
)
EDGE = "#333333"
GREY = "#777777"


def canvas(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of that size in inches, with its axes side by side."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    axes = drawn.subplots(1, panels, squeeze=False)
    return drawn, list(axes[0])


def dashes(values: Iterable[Any]) -> dict[Any, Any]:
    """The dash pattern of each value, in the order given."""
    return {value: DASHES[place % len(DASHES)] for place, value in enumerate(values)}


def draw_line(
    axes: Axes,
    x: "pd.Series[Any]",
    y: "pd.Series[Any]",
    architecture: str,
    *,
    dash: Any = "solid",
    hollow: bool = False,
    label: str | None = None,
) -> None:
    """A line in the colour and with the marker of its architecture. Markers have an outline, which
    makes light ones visible; hollow ones are white inside."""
    mark = palette.mark(architecture)
    axes.plot(
        x,
        y,
        color=mark.colour,
        marker=mark.marker,
        linestyle=dash,
        linewidth=1.5,
        markersize=6,
        markeredgewidth=1.0 if hollow else 0.5,
        markeredgecolor=mark.colour if hollow else EDGE,
        markerfacecolor="white" if hollow else mark.colour,
        label=label,
    )


def key(architecture: str) -> Line2D:
    """An architecture's entry in a legend."""
    mark = palette.mark(architecture)
    return Line2D(
        [],
        [],
        color=mark.colour,
        marker=mark.marker,
        markersize=6,
        markeredgewidth=0.5,
        markeredgecolor=EDGE,
        label=architecture,
    )


def grey_key(label: str, **style: Any) -> Line2D:
    """An entry in a legend that holds for all architectures, such as the dashes of a width."""
    return Line2D([], [], label=label, **{"color": GREY, **style})


def finish(axes: Axes, keys: Sequence[Line2D] | None = None) -> None:
    """Add the grid, and the legend beside the plot: inside it, the names of eight architectures
    would hide a line. `keys` None takes the labels of the lines; empty draws no legend."""
    axes.grid(alpha=0.3)
    options: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}
    if keys is None:
        axes.legend(**options)
    elif keys:
        axes.legend(handles=list(keys), **options)


def l0_axis(axes: Axes) -> None:
    """Put L0 on a logarithmic x axis. Ticks double, as the sparsities of a sweep do."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("L0 (active latents a token)")


def render(drawn: Figure, suffix: str) -> bytes:
    """The figure as 'pdf' or 'svg'. The same data gives the same bytes."""
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        drawn.savefig(content, format=suffix, metadata=METADATA[suffix])
    return content.getvalue()
