"""SAE Bench's evaluations in the course of the training."""

import math

import pandas as pd
from matplotlib import figure as mpl
from matplotlib.axes import Axes

from saemake.figures import Figure, Panel, palette, style

UNITS = {"B": 10**9, "M": 10**6, "k": 10**3}


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A panel for each evaluation of `rows`, one row per SAE and checkpoint. SAEs are faint lines,
    and the mean of each architecture is a strong one."""
    saes = style.saes(rows)
    saes = saes.assign(sae=saes["name"].str.replace(r"/checkpoints/ae_\d+$", "", regex=True))
    panels = style.shown(figure.panels, saes)
    # A logarithmic axis has no place for 0 tokens. It is put a decade before the first checkpoint.
    trained = saes.loc[saes["tokens"] > 0, "tokens"]
    first, last = (trained.min(), trained.max()) if len(trained) else (1, 1)
    saes = saes.assign(place=saes["tokens"].where(saes["tokens"] != 0, first / 10))
    drawn, all_axes = style.grid(style.two_columns(len(panels)), 7.5, 2.1)
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw_lines(axes, saes, panel)
        _tokens_axis(axes, first, last, broken=bool((saes["tokens"] == 0).any()))
        axes.set_title(panel.label, fontsize="medium")
    keys = style.architecture_keys(saes, panels)
    keys.append(style.grey_key("a single SAE", linewidth=1, alpha=0.5))
    style.finish_grid(drawn, title, "tokens trained on", keys)
    return drawn


def _draw_lines(axes: Axes, saes: pd.DataFrame, panel: Panel) -> None:
    points = style.points(saes, panel, "place")
    for architecture, of_architecture in points.groupby("architecture", sort=True):
        colour = palette.mark(str(architecture)).colour
        for _, line in of_architecture.groupby("sae", sort=True):
            axes.plot(line["place"], line[panel.column], color=colour, linewidth=1, alpha=0.3)
        means = of_architecture.groupby("place", as_index=False)[panel.column].mean()
        style.draw_line(axes, means["place"], means[panel.column], str(architecture))


def _tokens_axis(axes: Axes, first: float, last: float, broken: bool) -> None:
    """Put tokens on a logarithmic x axis with ticks at decades between the first and the last
    checkpoint. If it is broken, it has a tick of 0 tokens before the break."""
    axes.set_xscale("log")
    exponents = range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1)
    ticks = [10**exponent for exponent in exponents]
    if len(ticks) < 2:
        ticks = sorted({first, last})
    labels = [in_words(tokens) for tokens in ticks]
    if broken:
        ticks, labels = [first / 10, *ticks], ["0", *labels]
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        middle = first / math.sqrt(10)
        axes.text(
            middle,
            0,
            "//",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="center",
            color=style.EDGE,
            bbox=white,
        )
    axes.set_xticks(ticks, labels)
    axes.minorticks_off()


def in_words(tokens: float) -> str:
    """A number of tokens with three digits: 512k, 1.5M."""
    for unit, size in UNITS.items():
        if tokens >= size:
            return f"{tokens / size:.3g}{unit}"
    return f"{tokens:.3g}"
