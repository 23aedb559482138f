"""The style that all figures share: an architecture has its colour and marker, a width its line."""

import io
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from saemake import architectures
from saemake.base.errors import SaemakeError
from saemake.figures import LABELS, Panel, palette, seeds

# The bytes of a figure depend on its data only: no date, no random ids.
METADATA = {"pdf": {"CreationDate": None, "Creator": None}, "svg": {"Date": None, "Creator": None}}
FORMAT: dict[Any, Any] = {"svg.hashsalt": "saemake", "pdf.fonttype": 42, "svg.fonttype": "path"}
# Figures are drawn 5 inches wide (7.5 with panels side by side): at the width of a column of a
# paper with two columns, 3.3 inches, their letters are 6 points high.
STYLE: dict[Any, Any] = {
    **FORMAT,
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
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
MOST_TICKS = 9
EDGE = "#333333"
GREY = "#777777"
L0_LABEL = LABELS["l0"]
# The room in inches that an entry of a legend below a figure takes, across.
KEY_WIDTH = 2.2
# Letters of a note in an inch of a figure's width.
NOTE_CHARACTERS = 17
# Of a title.
TITLE_CHARACTERS = 15
# Of an axis' label, in an inch of the room that a grid has for a panel.
LABEL_CHARACTERS = 12
# The room of a figure that its title and legend take, in inches of its height.
AROUND = 1.0
# Panels share a y axis, if each panel's values take at least this part of it.
SMALLEST_PART = 0.1
# How far from the values of the SAEs a baseline is still drawn, in heights of their range.
BASELINE_REACH = 1.0
# A line for each baseline: PCA with as many components as L0; all components; the identity.
PCA_CURVE: dict[str, Any] = {"linestyle": "-", "marker": ".", "linewidth": 1.0, "markersize": 4}
PCA_LINE: dict[str, Any] = {"linestyle": "--"}
IDENTITY_LINE: dict[str, Any] = {"linestyle": ":"}
# Between an axis and its label, where tick labels are between them, in points.
LABEL_PAD = 22


def grid(counts: Sequence[int], width: float, row_height: float) -> tuple[Figure, list[Axes]]:
    """An empty figure of that width in inches, with rows of panels; `counts` has the number of
    panels in each row. All x axes have the same limits."""
    drawn = Figure(figsize=(width, row_height * len(counts) + AROUND), layout="constrained")
    rows = drawn.subplots(len(counts), max(counts), sharex=True, squeeze=False)
    for row, count in zip(rows, counts, strict=True):
        for unused in row[count:]:
            unused.remove()
    return drawn, [axes for row, count in zip(rows, counts, strict=True) for axes in row[:count]]


def two_columns(panels: int) -> list[int]:
    """How many panels are in each row of a grid of two columns."""
    return in_rows(panels, 2)


def in_rows(panels: int, columns: int = 3) -> list[int]:
    """How many panels are in each row of a grid of at most so many columns."""
    rest = panels % columns
    return [columns] * (panels // columns) + ([rest] if rest else [])


def by_size(rows: pd.DataFrame) -> list[str]:
    """The names of the widths, the narrowest first."""
    return list(rows.sort_values("latents")["width"].unique())


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
) -> None:
    """A line in the colour and with the marker of its architecture (see draw_marked)."""
    mark = palette.mark(architecture)
    draw_marked(axes, x, y, mark, dash=dash, hollow=hollow)


def draw_marked(
    axes: Axes,
    x: "pd.Series[Any]",
    y: "pd.Series[Any]",
    mark: palette.Mark,
    *,
    dash: Any = "solid",
    hollow: bool = False,
) -> Line2D:
    """A line in a colour and with a marker. Markers have an outline, which makes light ones
    visible; hollow ones are white inside."""
    (line,) = axes.plot(
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
    )
    return line


def as_key(line: Line2D, label: str) -> Line2D:
    """A legend's entry that looks like a line."""
    entry = Line2D([], [])
    entry.update_from(line)
    entry.set_label(label)
    return entry


def error_bars(axes: Axes, rows: pd.DataFrame, x: str, y: str, architecture: str) -> None:
    """Bars of a standard deviation over seeds, where there were several (see seeds.spread)."""
    draw_bars(axes, rows, x, y, palette.mark(architecture))


def draw_bars(axes: Axes, rows: pd.DataFrame, x: str, y: str, mark: palette.Mark) -> None:
    """The same in a mark's colour: vertical ones of y, and of x horizontal ones where it
    spreads."""
    of_x, of_y = seeds.spread(rows, x), seeds.spread(rows, y)
    bars: dict[str, Any] = {"color": mark.colour, "linestyle": "", "capsize": 2, "linewidth": 1}
    if of_y.notna().any():
        bars["yerr"] = of_y
    if (of_x > 0).any():
        bars["xerr"] = of_x
    if {"xerr", "yerr"} & set(bars):
        axes.errorbar(rows[x], rows[y], **bars)


def key(architecture: str, *, label: str | None = None, dash: Any = "solid") -> Line2D:
    """An architecture's entry in a legend."""
    mark = palette.mark(architecture)
    return Line2D(
        [],
        [],
        color=mark.colour,
        marker=mark.marker,
        linestyle=dash,
        markersize=6,
        markeredgewidth=0.5,
        markeredgecolor=EDGE,
        label=label or architecture,
    )


def grey_key(label: str, **style: Any) -> Line2D:
    """An entry in a legend that holds for all architectures, such as the dashes of a width."""
    return Line2D([], [], label=label, **{"color": GREY, **style})


def width_keys(dashes: Mapping[str, Any]) -> list[Line2D]:
    """The legend's entries of widths that differ in their dashes."""
    return [grey_key(f"width {width}", linestyle=dash) for width, dash in dashes.items()]


def finish_grid(drawn: Figure, title: str, x_label: str, keys: Sequence[Line2D]) -> None:
    """Add to a grid of panels the title, the grid lines, the x label of the lowest panel of each
    column, and one legend below all panels."""
    for axes in drawn.axes:
        axes.grid(alpha=0.3)
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("")
        axes.set_ylabel(_wrapped(axes.get_ylabel(), _row_height(axes)))
    specs = ((axes, axes.get_subplotspec()) for axes in drawn.axes)
    lowest = {spec.colspan.start: (axes, spec.is_last_row()) for axes, spec in specs if spec}
    x_label = _wrapped(x_label, drawn.get_figwidth() / len(lowest))
    for axes, is_last_row in lowest.values():
        if is_last_row:
            axes.set_xlabel(x_label)
        else:
            _label_above_unused(axes, x_label)
    width = int(drawn.get_figwidth() * TITLE_CHARACTERS)
    wrapped = "\n".join(textwrap.fill(line, width) for line in title.splitlines())
    drawn.suptitle(wrapped, parse_math=False)
    if not keys:
        return
    rows = math.ceil(len(keys) * KEY_WIDTH / drawn.get_figwidth())
    columns = math.ceil(len(keys) / rows)
    options: dict[str, Any] = {"ncols": columns, "frameon": False, "fontsize": "small"}
    options["handlelength"] = 3  # dashes and a marker fit in
    drawn.legend(handles=list(keys), loc="outside lower center", **options)


def _row_height(axes: Axes) -> float:
    """The height in inches that a grid has for each of its rows."""
    spec, drawn = axes.get_subplotspec(), axes.get_figure()
    assert spec is not None
    assert isinstance(drawn, Figure)
    return (drawn.get_figheight() - AROUND) / spec.get_gridspec().nrows


def _wrapped(label: str, inches: float) -> str:
    """A label in lines of that length. It breaks between words and after `_`, but not in
    brackets."""
    lines: list[str] = []
    for given in label.splitlines():
        lines.append("")
        for piece in re.findall(r"\(.*?\)\s*|[^\s_]*_|[^\s_]+\s*", given):
            if lines[-1] and len((lines[-1] + piece).rstrip()) > inches * LABEL_CHARACTERS:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def share_y(all_axes: Sequence[Axes]) -> None:
    """Give panels of one column the same y axis, so that their values can be compared. Each keeps
    its own where that would press a panel's values together."""
    limits = [axes.get_ylim() for axes in all_axes]
    low, high = min(least for least, _ in limits), max(most for _, most in limits)
    # A panel of a single value has nothing that could be pressed together.
    heights = [height for axes in all_axes if (height := axes.dataLim.height) > 0]
    if min(heights, default=high - low) < SMALLEST_PART * (high - low):
        return
    for axes in all_axes:
        axes.set_ylim(low, high)


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
    """The rows without the baselines."""
    return rows[rows["width"].notna()]


def one_for_all(architecture: str) -> bool:
    """Whether an SAE of the architecture is of several sparsities. Baselines are not."""
    return architecture in architectures.names() and architectures.get(architecture).one_for_all


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


def draw_against_l0(
    axes: Axes, rows: pd.DataFrame, panel: Panel, dashes: Mapping[str, Any] | None = None
) -> None:
    """The panel's figure against L0, one line for each architecture and width, with error bars; of
    an architecture that is one SAE for all sparsities, one line for each SAE. `dashes` are those of
    the widths, where these differ."""
    shown = points(rows, panel, "l0")
    each_sae = shown["name"].where(shown["architecture"].map(one_for_all), "")
    lines = shown.groupby(["architecture", "width", each_sae], sort=True)
    for (architecture, width, _), line in lines:
        dash = dashes[str(width)] if dashes else "solid"
        draw_line(axes, line["l0"], line[panel.column], str(architecture), dash=dash)
        error_bars(axes, line, "l0", panel.column, str(architecture))
    l0_axis(axes)


def draw_baselines(axes: Axes, rows: pd.DataFrame, panel: Panel) -> dict[str, Line2D]:
    """Draw the baselines of the panel's figure in grey. Returns their entries in a legend by label.

    PCA with as many components as L0 is a line; PCA with all components and the identity are lines
    across the panel. A baseline far from the values of the SAEs is left out: it would press these
    together.
    """
    shown = points(saes(rows), panel, "l0")[panel.column]
    baselines = points(rows[rows["width"].isna()], panel, "name")
    if shown.empty or baselines.empty:
        return {}
    reach = BASELINE_REACH * max(float(shown.max() - shown.min()), 1e-3 * abs(float(shown.max())))
    values = baselines[panel.column]
    near = baselines[values.between(shown.min() - reach, shown.max() + reach)]
    keys: dict[str, Line2D] = {}
    curve = near[(near["architecture"] == "pca") & near["sparsity"].notna()].sort_values("l0")
    if len(curve) > 1:
        axes.plot(curve["l0"], curve[panel.column], color=GREY, zorder=1, **PCA_CURVE)
        label = "PCA, L0 components"
        keys[label] = grey_key(label, **PCA_CURVE)
    for name, label, line in (
        ("pca", "PCA, all components", PCA_LINE),
        ("identity", "identity", IDENTITY_LINE),
    ):
        found = near[(near["architecture"] == name) & near["sparsity"].isna()]
        if not found.empty:
            axes.axhline(found[panel.column].iloc[0], color=GREY, linewidth=1.5, zorder=1, **line)
            keys[label] = grey_key(label, **line)
    return keys


def architecture_keys(rows: pd.DataFrame, panels: Sequence[Panel]) -> list[Line2D]:
    """The legend's entries of the architectures that are in at least one panel, sorted."""
    in_panels = rows.dropna(subset=[panel.column for panel in panels], how="all")
    return [key(name) for name in sorted(in_panels["architecture"].unique())]


def l0_axis(axes: Axes) -> None:
    """Put L0 on a logarithmic x axis. Ticks double, as the sparsities of a sweep do, or are further
    apart where L0 goes over more than MOST_TICKS of them."""
    axes.set_xscale("log", base=2)
    spec = axes.get_subplotspec()
    columns = spec.get_gridspec().ncols if spec else 1
    most = MOST_TICKS if columns < 3 else MOST_TICKS // 2
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=most))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_xlabel(L0_LABEL)


def render(drawn: Figure, suffix: str) -> bytes:
    """The figure as 'pdf' or 'svg'. The same data gives the same bytes."""
    content = io.BytesIO()
    with matplotlib.rc_context(FORMAT):
        drawn.savefig(content, format=suffix, metadata=METADATA[suffix])
    return content.getvalue()
