"""Frontier figures: a quality against L0, one line an architecture and width."""

import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from saemake.figures import FRONTIERS

# A figure's bytes are its data's: no date, no random ids.
METADATA = {"pdf": {"CreationDate": None, "Creator": None}, "svg": {"Date": None, "Creator": None}}
STYLE: dict[Any, Any] = {"svg.hashsalt": "saemake", "pdf.fonttype": 42, "svg.fonttype": "path"}


def table(sweeps: list[Path]) -> pd.DataFrame:
    """One row an SAE, from the metrics.json of sweeps."""
    rows = [row for path in sweeps for row in json.loads(path.read_text())]
    return pd.json_normalize(rows)


def draw(rows: pd.DataFrame, figure: str, title: str) -> Figure:
    """The named frontier of `rows`."""
    column, label = FRONTIERS[figure]
    several = rows["width"].nunique() > 1
    drawn = Figure(figsize=(7.5, 4), layout="constrained")
    axes = drawn.subplots()
    sns.lineplot(
        rows.sort_values("l0"),
        x="l0",
        y=column,
        hue="architecture",
        hue_order=sorted(rows["architecture"].unique()),
        style="width" if several else "architecture",
        markers=True,
        dashes=several,
        estimator=None,
        ax=axes,
    )
    # Sparsities double from one to the next: so do the ticks.
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="L0 (active latents a token)", ylabel=label, title=title)
    axes.grid(alpha=0.3)
    # Beside the plot: inside it, eight architectures' names hide a line.
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1, 1), frameon=False)
    return drawn


def render(drawn: Figure, suffix: str) -> bytes:
    """The figure as 'pdf' or 'svg', the same bytes for the same data."""
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        drawn.savefig(content, format=suffix, metadata=METADATA[suffix])
    return content.getvalue()
