"""Frontier figures, a quality against L0, one line an architecture and width; and figures of the
training, a quality against the tokens trained on, one line an SAE."""

import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from saemake.figures import FRONTIERS, TRAINING

# A figure's bytes are its data's: no date, no random ids.
METADATA = {"pdf": {"CreationDate": None, "Creator": None}, "svg": {"Date": None, "Creator": None}}
STYLE: dict[Any, Any] = {"svg.hashsalt": "saemake", "pdf.fonttype": 42, "svg.fonttype": "path"}


def table(paths: list[Path]) -> pd.DataFrame:
    """One row an SAE or checkpoint, of the metrics.json of sweeps: with its loader's way of
    choosing latents, which comes first, and without the baselines."""
    rows = pd.json_normalize([row for path in paths for row in json.loads(path.read_text())])
    return rows[rows["width"].notna()].drop_duplicates("name")


def draw(rows: pd.DataFrame, figure: str, title: str) -> Figure:
    """The named figure of `rows`."""
    drawn = Figure(figsize=(7.5, 4), layout="constrained")
    axes = drawn.subplots()
    if figure in FRONTIERS:
        _draw_frontier(rows, figure, axes)
    else:
        _draw_training(rows, figure, axes)
    axes.set(title=title)
    axes.grid(alpha=0.3)
    # Beside the plot: inside it, eight architectures' names hide a line.
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1, 1), frameon=False)
    return drawn


def _draw_frontier(rows: pd.DataFrame, figure: str, axes: Any) -> None:
    l0, column, label = FRONTIERS[figure]
    several = rows["width"].nunique() > 1
    sns.lineplot(
        rows.sort_values(l0),
        x=l0,
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
    axes.set(xlabel="L0 (active latents a token)", ylabel=label)


def _draw_training(rows: pd.DataFrame, figure: str, axes: Any) -> None:
    column, label = TRAINING[figure]
    several = rows["width"].nunique() > 1
    of = ["architecture", "width"] if several else ["architecture"]
    rows = rows.assign(SAE=rows[[*of, "sparsity"]].agg(" ".join, axis=1))
    sns.lineplot(
        rows.sort_values("tokens"),
        x="tokens",
        y=column,
        hue="SAE",
        marker="o",
        estimator=None,
        ax=axes,
    )
    # From nothing trained on, which a plain logarithm has no place for.
    axes.set_xscale("symlog", linthresh=max(rows.loc[rows["tokens"] > 0, "tokens"].min(), 1))
    axes.set(xlabel="tokens trained on", ylabel=label)


def render(drawn: Figure, suffix: str) -> bytes:
    """The figure as 'pdf' or 'svg', the same bytes for the same data."""
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        drawn.savefig(content, format=suffix, metadata=METADATA[suffix])
    return content.getvalue()
