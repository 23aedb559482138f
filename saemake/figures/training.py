"""Training figures: a quality against the tokens trained on, one line for each SAE."""

import pandas as pd
from matplotlib import figure as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from saemake.figures import Figure, Panel, style


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """The training of the SAEs in `rows`, one row per checkpoint. SAEs of one architecture differ
    in their dashes."""
    saes = style.saes(rows)
    columns = ["width", "sparsity"] if saes["width"].nunique() > 1 else ["sparsity"]
    saes = saes.assign(sae=saes[columns].agg(" ".join, axis=1))
    (panel,) = style.shown([Panel(figure.y, figure.label)], saes)
    drawn, (axes,) = style.grid([1], 5, 3)
    keys = _draw_lines(axes, saes, panel)
    _tokens_axis(axes, saes)
    axes.set_ylabel(panel.label)
    style.finish_grid(drawn, title, "tokens trained on", list(keys.values()))
    return drawn


def _draw_lines(axes: Axes, saes: pd.DataFrame, panel: Panel) -> dict[str, Line2D]:
    """A line for each SAE. Returns the legend's entries by their labels."""
    keys: dict[str, Line2D] = {}
    for architecture, of_architecture in saes.groupby("architecture", sort=True):
        dashes = style.dashes(of_architecture["sae"].unique())
        for sae, dash in dashes.items():
            line = style.points(of_architecture[of_architecture["sae"] == sae], panel, "tokens")
            style.draw_line(axes, line["tokens"], line[panel.column], str(architecture), dash=dash)
            label = f"{architecture} {sae}"
            keys[label] = style.key(str(architecture), label=label, dash=dash)
    return keys


def _tokens_axis(axes: Axes, saes: pd.DataFrame) -> None:
    """The axis starts at 0 tokens, which a logarithmic axis cannot show."""
    trained = saes.loc[saes["tokens"] > 0, "tokens"]
    axes.set_xscale("symlog", linthresh=max(trained.min(), 1) if len(trained) else 1)
