"""Histograms over the latents of each SAE: densities, similarities of decoder directions."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import figure as mpl
from matplotlib.axes import Axes

from saemake.base.errors import SaemakeError
from saemake.figures import Figure, shades, style

BINS = 40
# The column of densities, whose axis is logarithmic.
DENSITY = "feature_density"


def draw(figure: Figure, rows: pd.DataFrame, title: str) -> mpl.Figure:
    """A panel for each architecture and width, a line for each SAE: the share of its latents in
    each of 40 equal bins. `rows` have a row per SAE and latent, with the column `figure.x`. Darker
    lines are SAEs of larger L0. Latents of density 0 have a bin of their own, left of the
    others."""
    latents = style.with_l0(rows).dropna(subset=[figure.x])
    if latents.empty:
        raise SaemakeError(f"no latent has a {figure.x}")
    groups = list(latents.groupby(["architecture", "width"], sort=True))
    drawn, all_axes = style.grid(style.two_columns(len(groups)), 7.5, 2.1)
    edges, zero = _bins(latents[figure.x], logarithmic=figure.x == DENSITY)
    scale = shades.Scale(latents["l0"])
    for axes, ((architecture, width), of_group) in zip(all_axes, groups, strict=True):
        for _, of_sae in of_group.groupby("name", sort=True):
            colour = scale.colour(of_sae["l0"].iloc[0])
            _draw_sae(axes, of_sae[figure.x].to_numpy(float), edges, zero, colour)
        if figure.x == DENSITY:
            _density_axis(axes, edges, zero)
        axes.set_title(f"{architecture} {width}", fontsize="medium")
        axes.set_ylabel("share of latents")
    style.finish_grid(drawn, title, figure.label, [])
    scale.key(drawn, all_axes)
    return drawn


def _bins(values: "pd.Series[float]", *, logarithmic: bool) -> tuple[np.ndarray, float]:
    """The edges of the bins, and the place of latents of density 0 (nan where the axis is not
    logarithmic)."""
    if not logarithmic:
        return np.linspace(min(0.0, float(values.min())), 1.0, BINS + 1), math.nan
    alive = values[values > 0]
    smallest = float(alive.min()) if len(alive) else 0.1
    edges = np.logspace(math.floor(math.log10(smallest)), 0, BINS + 1)
    return edges, edges[0] / 4


def _draw_sae(axes: Axes, values: np.ndarray, edges: np.ndarray, zero: float, colour: Any) -> None:
    # Rounding puts a cosine of two directions that are the same a little over 1.
    counts, _ = np.histogram(np.minimum(values, edges[-1]), edges)
    axes.stairs(counts / len(values), edges, color=colour, linewidth=1.3)
    if not math.isnan(zero) and (never := (values == 0).mean()):
        axes.plot([zero], [never], color=colour, marker="_", markersize=9, markeredgewidth=2)


def _density_axis(axes: Axes, edges: np.ndarray, zero: float) -> None:
    axes.set_xscale("log")
    low = round(math.log10(edges[0]))
    decades = [10.0**place for place in range(low, 1)]
    # Every second decade has a label, but not the first: labels side by side would touch.
    labels = [
        ("1" if place == 0 else f"$10^{{{place}}}$") if place % 2 == 0 and place != low else ""
        for place in range(low, 1)
    ]
    axes.set_xticks([zero, *decades], ["never", *labels])
    axes.minorticks_off()
    axes.set_xlim(zero / 2.5, 1.3)
