"""Training figures: a quality against the tokens trained on, one line for each SAE."""

import pandas as pd
from matplotlib import figure as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from saemake.figures import Figure, Panel, style
from saemake.figures.course import in_words


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """The training of the SAEs in `rows`, one row per checkpoint or line of training.csv. SAEs of
    one architecture differ in their dashes."""
    saes = style.saes(rows)
    columns = ["width", "sparsity"] if saes["width"].nunique() > 1 else ["sparsity"]
    saes = saes.assign(sae=saes[columns].agg(" ".join, axis=1))
    # No evaluation of the suite is asked for where a file beside the tables has the columns.
    panels = [each for each in figure.panels if each.column in saes and saes[each.column].any()]
    panels = panels if figure.panels else style.shown([Panel(figure.y, figure.label)], saes)
    counts = style.two_columns(len(panels)) if len(panels) > 1 else [1]
    drawn, all_axes = style.grid(counts, 7.5 if len(panels) > 1 else 5, 2.2 if figure.panels else 3)
    keys: dict[str, Line2D] = {}
    for axes, panel in zip(all_axes, panels, strict=True):
        keys |= _draw_lines(axes, saes, panel, markers=not figure.beside)
        if figure.beside:
            _bounds(axes, saes, panel)
        else:
            _tokens_axis(axes, saes)
        axes.set_ylabel(panel.label)
    style.finish_grid(drawn, title, "tokens trained on", list(keys.values()))
    return drawn


def _draw_lines(
    axes: Axes, saes: pd.DataFrame, panel: Panel, *, markers: bool
) -> dict[str, Line2D]:
    """A line for each SAE. Returns the legend's entries by their labels."""
    keys = {}
    for architecture, of_architecture in saes.groupby("architecture", sort=True):
        dashes = style.dashes(of_architecture["sae"].unique())
        for sae, dash in dashes.items():
            line = style.points(of_architecture[of_architecture["sae"] == sae], panel, "tokens")
            style.draw_line(
                axes,
                line["tokens"],
                line[panel.column],
                str(architecture),
                dash=dash,
                markers=markers,
            )
            label = f"{architecture} {sae}"
            keys[label] = style.key(str(architecture), label=label, dash=dash)
    return keys


def _bounds(axes: Axes, saes: pd.DataFrame, panel: Panel) -> None:
    """Leave out what the first steps have: an untrained SAE's loss and variance explained are far
    from all later ones. The loss falls by powers of ten."""
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda tokens, _place: in_words(tokens) if tokens else "0")
    values = pd.to_numeric(saes[panel.column])
    if panel.column == "loss" and (values.dropna() > 0).all():
        axes.set_yscale("log")
    if panel.column == "frac_variance_explained":
        axes.set_ylim(bottom=max(float(values.min()), 0), top=1)


def _tokens_axis(axes: Axes, saes: pd.DataFrame) -> None:
    """The axis starts at 0 tokens, which a logarithmic axis cannot show."""
    trained = saes.loc[saes["tokens"] > 0, "tokens"]
    axes.set_xscale("symlog", linthresh=max(trained.min(), 1) if len(trained) else 1)
