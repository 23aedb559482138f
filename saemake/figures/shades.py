"""Shades of L0: one colour for each SAE of a figure with many lines, the darker the larger its
L0. They stay apart in greyscale."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib import figure as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm

COLOURS = colormaps["viridis_r"]
# The lighter end of the colours is left out: it is hard to see on white.
LIGHTEST, DARKEST = 0.15, 1.0
SMALLEST_L0 = 1e-3
MOST_TICKS = 8


class Scale:
    """Colours for SAEs of these L0, on a logarithmic scale."""

    def __init__(self, l0: "pd.Series[float]") -> None:
        self.l0 = sorted({float(f"{value:.2g}") for value in l0.dropna()})
        smallest = max(min(self.l0, default=1.0), SMALLEST_L0)
        largest = max(max(self.l0, default=1.0), smallest)
        self.norm = LogNorm(smallest / 1.01, largest * 1.01)

    def colour(self, l0: float) -> Any:
        """The colour of an SAE; of one without an L0 the lightest."""
        share = 0.0 if math.isnan(l0) else float(np.clip(self.norm(max(l0, SMALLEST_L0)), 0, 1))
        return COLOURS(LIGHTEST + (DARKEST - LIGHTEST) * share)

    def key(self, drawn: mpl.Figure, all_axes: Sequence[Axes]) -> None:
        """Draw the colours beside the panels, with a tick at each L0, or at some of many."""
        shades = ListedColormap(COLOURS(np.linspace(LIGHTEST, DARKEST, 256)))
        shrink = min(0.8, 3 / drawn.get_figheight())
        mappable = ScalarMappable(self.norm, shades)
        bar = drawn.colorbar(mappable, ax=list(all_axes), label="L0", shrink=shrink)
        ticks = self.l0[:: math.ceil(len(self.l0) / MOST_TICKS) or 1]
        bar.ax.set_yticks(ticks, [f"{value:g}" for value in ticks])
        bar.ax.minorticks_off()
