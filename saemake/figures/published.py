"""Figures of rebuilt SAEs beside published ones."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

# Of an evaluation: what its axes are called.
PANELS = {
    "sae_bench_core": "SAE Bench core",
    "dictionary_learning": "dictionary_learning",
}


def table(paths: list[Path]) -> pd.DataFrame:
    """One row a comparison."""
    return pd.json_normalize([json.loads(path.read_text()) for path in paths])


def draw(rows: pd.DataFrame, figure: str, title: str) -> Figure:
    """The named figure of `rows`."""
    return {"rebuilt_and_published": _frontiers, "decoder_match": _match}[figure](rows, title)


def _frontiers(rows: pd.DataFrame, title: str) -> Figure:
    """Loss recovered against L0, by both evaluations: rebuilt, and as the catalogue has it."""
    drawn = Figure(figsize=(12, 4), layout="constrained")
    panels = drawn.subplots(1, len(PANELS))
    for axes, (evaluation, label) in zip(panels, PANELS.items(), strict=True):
        both = [_side(rows, evaluation, side) for side in ("rebuilt", "catalogue")]
        long = pd.concat(both, ignore_index=True)
        _lines(long.dropna(subset=["l0", "loss_recovered"]), axes)
        axes.set(title=f"{title}: {label}", xlabel="L0 (active latents a token)")
        axes.set_ylabel("loss recovered")
    panels[0].get_legend().remove()
    return drawn


def _side(rows: pd.DataFrame, evaluation: str, side: str) -> pd.DataFrame:
    figures = {
        name: pd.to_numeric(rows[f"figures.{evaluation}.{name}.{side}"])
        for name in ("l0", "loss_recovered")
    }
    called = {"rebuilt": "rebuilt", "catalogue": "published"}[side]
    return rows[["architecture", "width"]].assign(**figures, SAE=called)


def _lines(long: pd.DataFrame, axes: Any) -> None:
    sns.lineplot(
        long.sort_values("l0"),
        x="l0",
        y="loss_recovered",
        hue=long[["architecture", "width"]].agg(" ".join, axis=1),
        style="SAE",
        style_order=["rebuilt", "published"],
        markers=True,
        estimator=None,
        ax=axes,
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1, 1), frameon=False)


def _match(rows: pd.DataFrame, title: str) -> Figure:
    """How much of the published decoder is in the rebuilt one, an SAE a bar, by verdict."""
    drawn = Figure(figsize=(8, 0.3 * len(rows) + 1.5), layout="constrained")
    axes = drawn.subplots()
    rows = rows.assign(SAE=rows[["architecture", "width", "sparsity"]].agg(" ".join, axis=1))
    sns.barplot(
        rows,
        y="SAE",
        x="decoder.published_in_rebuilt.mean_max_cosine",
        hue="verdict",
        hue_order=["identical", "reproduced", "equivalent", "different"],
        dodge=False,
        ax=axes,
    )
    axes.set(title=title, xlim=(0, 1), ylabel=None)
    axes.set_xlabel("mean over published latents of the largest cosine with a rebuilt one")
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1, 1), frameon=False)
    return drawn
