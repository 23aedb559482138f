"""The style that all figures share: an architecture has its colour and marker, a width its line."""

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

from saemake.base.errors import SaemakeError
from saemake.figures import Panel, palette

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
L0_LABEL = "L0 (active latents a token)"
# The room in inches that an entry of a legend below a figure takes, across.
KEY_WIDTH = 2.3
# Of a note, in an inch of a figure's width.
NOTE_CHARACTERS = 17
# Between an axis and its label, where tick labels are between them, in points.
LABEL_PAD = 22


def canvas(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of that size in inches, with its axes side by side."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    axes = drawn.subplots(1, panels, squeeze=False)
    return drawn, list(axes[0])


def grid(counts: Sequence[int], width: float, row_height: float) -> tuple[Figure, list[Axes]]:
    """An empty figure of that width in inches, with rows of panels; `counts` has the number of
    panels in each row. All x axes have the same limits."""
    drawn = Figure(figsize=(width, row_height * len(counts) + 1), layout="constrained")
    rows = drawn.subplots(len(counts), max(counts), sharex=True, squeeze=False)
    for row, count in zip(rows, counts, strict=True):
        for unused in row[count:]:
            unused.remove()
    return drawn, [axes for row, count in zip(rows, counts, strict=True) for axes in row[:count]]


def two_columns(panels: int) -> list[int]:
    """How many panels are in each row of a grid of two columns."""
    return [2] * (panels // 2) + [1] * (panels % 2)


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


def error_bars(axes: Axes, rows: pd.DataFrame, x: str, y: str, architecture: str) -> None:
    """Bars of a standard deviation over the seeds of an evaluation, where there were several."""
    if (column := f"noise.{y}.standard_deviation") in rows:
        axes.errorbar(
            rows[x],
            rows[y],
            yerr=pd.to_numeric(rows[column]),
            color=palette.mark(architecture).colour,
            linestyle="",
            capsize=2,
            linewidth=1,
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


def finish_grid(drawn: Figure, title: str, x_label: str, keys: Sequence[Line2D]) -> None:
    """Add to a grid of panels the title, the grid lines, the x label of the lowest panel of each
    column, and one legend below all panels."""
    for axes in drawn.axes:
        finish(axes, [])
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("")
    specs = ((axes, axes.get_subplotspec()) for axes in drawn.axes)
    lowest = {spec.colspan.start: (axes, spec.is_last_row()) for axes, spec in specs if spec}
    for axes, is_last_row in lowest.values():
        if is_last_row:
            axes.set_xlabel(x_label)
        else:
            _label_above_unused(axes, x_label)
    drawn.suptitle(title)
    rows = math.ceil(len(keys) * KEY_WIDTH / drawn.get_figwidth())
    columns = math.ceil(len(keys) / rows)
    drawn.legend(handles=list(keys), loc="outside lower center", ncols=columns, frameon=False)


def _label_above_unused(axes: Axes, label: str) -> None:
    """Write an x label into the unused place below. An ordinary label would push the rows apart."""
    written = axes.annotate(
        label, (0.5, 0), (0, -LABEL_PAD), "axes fraction", "offset points", ha="center", va="top"
    )
    written.set_in_layout(False)


def add_note(drawn: Figure, lines: Sequence[str]) -> None:
    """Write lines in small grey letters below the panels: above the legend if it is there too,
    which a label of the whole figure would be drawn over."""
    width = int(drawn.get_figwidth() * NOTE_CHARACTERS)
    wrapped = "\n".join(part for line in lines for part in textwrap.wrap(line, width))
    for legend in drawn.legends:
        legend.set_title(wrapped, prop=FontProperties(size="x-small"))
        legend.get_title().set_color(GREY)
    if not drawn.legends:
        drawn.supxlabel(wrapped, x=0.01, ha="left", fontsize="x-small", color=GREY)


def saes(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without the PCA baseline."""
    return rows[rows["width"].notna()]


def with_width(title: str, rows: pd.DataFrame) -> str:
    """The title with the width of the SAEs, if all have the same."""
    widths = rows["width"].unique()
    return f"{title}, width {widths[0]}" if len(widths) == 1 else title


def with_l0(rows: pd.DataFrame) -> pd.DataFrame:
    """The SAEs of the rows that have an L0. Raises SaemakeError if none has."""
    found = saes(rows).dropna(subset=["l0"])
    if found.empty:
        raise SaemakeError(
            "no SAE has an L0; add sae_bench_core or dictionary_learning to"
            " models.<name>.suite.evaluations"
        )
    return found


def shown(panels: Sequence[Panel], rows: pd.DataFrame) -> list[Panel]:
    """The panels whose column has a value. Raises SaemakeError if none has."""
    found = [panel for panel in panels if panel.column in rows and rows[panel.column].notna().any()]
    if not found:
        evaluations = dict.fromkeys(panel.evaluation for panel in panels)
        raise SaemakeError(
            "the figure has nothing to show; add one or more of its evaluations to"
            f" models.<name>.suite.evaluations: {', '.join(evaluations)}"
        )
    return found


def points(rows: pd.DataFrame, panel: Panel, x: str) -> pd.DataFrame:
    """The rows that have a value of `x` and of the panel's column, sorted by `x`. The column is as
    the panel shows it."""
    values = pd.to_numeric(rows[panel.column])
    rows = rows.assign(**{panel.column: 1 - values if panel.flipped else values})
    return rows.dropna(subset=[x, panel.column]).sort_values(x)


def draw_against_l0(axes: Axes, rows: pd.DataFrame, panel: Panel) -> None:
    """The panel's figure against L0, one line for each architecture, with error bars."""
    for architecture, line in points(rows, panel, "l0").groupby("architecture", sort=True):
        draw_line(axes, line["l0"], line[panel.column], str(architecture))
        error_bars(axes, line, "l0", panel.column, str(architecture))
    l0_axis(axes)


def architecture_keys(rows: pd.DataFrame, panels: Sequence[Panel]) -> list[Line2D]:
    """The legend's entries of the architectures that are in at least one panel, sorted."""
    in_panels = rows.dropna(subset=[panel.column for panel in panels], how="all")
    return [key(name) for name in sorted(in_panels["architecture"].unique())]


def l0_axis(axes: Axes) -> None:
    """Put L0 on a logarithmic x axis. Ticks double, as the sparsities of a sweep do."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(L0_LABEL)


def render(drawn: Figure, suffix: str) -> bytes:
    """The figure as 'pdf' or 'svg'. The same data gives the same bytes."""
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        drawn.savefig(content, format=suffix, metadata=METADATA[suffix])
    return content.getvalue()
