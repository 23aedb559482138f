"""Training curves: what training.csv has, for each SAE."""

import pandas as pd
from matplotlib import figure as mpl
from matplotlib.axes import Axes

from saemake.base.errors import SaemakeError
from saemake.figures import Figure, Panel, shades, style
from saemake.figures.course import in_words


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A row of panels for each architecture and width, a panel for each column of training.csv, a
    line for each SAE. `rows` are the lines of training.csv, with the SAE's own L0 as `sae_l0`.
    Darker lines are SAEs of larger L0."""
    saes = _with_share_of_dead(style.saes(rows))
    panels = [each for each in figure.panels if each.column in saes and saes[each.column].any()]
    if not panels:
        raise SaemakeError("no training.csv has a figure of the training")
    groups = list(saes.groupby(["architecture", "width"], sort=True))
    drawn, all_axes = style.grid([len(panels)] * len(groups), 7.5, 1.5)
    scale = shades.Scale(saes["sae_l0"])
    places = iter(all_axes)
    for place, ((architecture, width), of_group) in enumerate(groups):
        for panel in panels:
            axes = next(places)
            for _, line in of_group.groupby("name", sort=True):
                colour = scale.colour(line["sae_l0"].iloc[0])
                axes.plot(line["tokens"], line[panel.column], color=colour, linewidth=1)
            _bounds(axes, of_group, panel)
            if place == 0:
                axes.set_title(panel.label, fontsize="medium")
            if panel is panels[0]:
                axes.set_ylabel(f"{architecture}\n{width}")
    style.finish_grid(drawn, title, "tokens", [])
    scale.key(drawn, all_axes)
    return drawn


def _with_share_of_dead(saes: pd.DataFrame) -> pd.DataFrame:
    """training.csv counts dead latents. Other figures show their share."""
    return saes.assign(dead=saes["dead"] / saes["latents"]) if "dead" in saes else saes


def _bounds(axes: Axes, saes: pd.DataFrame, panel: Panel) -> None:
    """Leave out what the first steps have: an untrained SAE's loss and variance explained are far
    from all later ones. The loss falls by powers of ten."""
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda tokens, _place: in_words(tokens) if tokens else "0")
    axes.locator_params(axis="x", nbins=3)
    values = pd.to_numeric(saes[panel.column])
    if panel.column == "loss" and (values.dropna() > 0).all():
        axes.set_yscale("log")
    if panel.column == "frac_variance_explained":
        axes.set_ylim(bottom=max(float(values.min()), 0), top=1)
