"""The registry of figures. Names and paths need nothing else, so this module imports no plotting
library.

One more frontier or training figure is one more entry here. One more kind of figure is also a
module of this package with a function `draw(figure, rows, title)`.
"""

from dataclasses import dataclass
from typing import Literal

from saemake.base.errors import SaemakeError, nearest


@dataclass(frozen=True)
class Figure:
    """How a figure is made. `kind` is the module of this package that draws it. `shows` says whose
    tables it reads: a suite's sweeps, these and their checkpoints ("training"), or the published
    SAEs of a layer. `table` is the name of the file that it reads of each. `x` and `y` are columns
    of these tables, and `label` names y on the axis."""

    kind: Literal["frontier", "training", "rebuilt", "match"]
    shows: Literal["suite", "training", "published"]
    table: str
    label: str
    x: str = ""
    y: str = ""


def _frontier(evaluation: str, quality: str, label: str) -> Figure:
    columns = {"x": f"{evaluation}.l0", "y": f"{evaluation}.{quality}"}
    return Figure("frontier", "suite", "metrics.json", label, **columns)


FIGURES: dict[str, Figure] = {
    "loss_recovered_vs_l0": _frontier("dictionary_learning", "frac_recovered", "loss recovered"),
    "variance_explained_vs_l0": _frontier(
        "dictionary_learning", "frac_variance_explained", "fraction of variance explained"
    ),
    "core_loss_recovered_vs_l0": _frontier(
        "sae_bench_core", "ce_loss_score", "loss recovered (SAE Bench core)"
    ),
    "loss_recovered_vs_tokens": Figure(
        "training",
        "training",
        "metrics.json",
        "loss recovered",
        x="tokens",
        y="dictionary_learning.frac_recovered",
    ),
    "rebuilt_and_published": Figure(
        "rebuilt", "published", "against_catalogue.json", "loss recovered"
    ),
    "decoder_match": Figure(
        "match",
        "published",
        "comparison.json",
        "mean over published latents of the largest cosine with a rebuilt one",
        x="decoder.published_in_rebuilt.mean_max_cosine",
    ),
}
FRONTIERS = [name for name, figure in FIGURES.items() if figure.kind == "frontier"]
TRAINING = [name for name, figure in FIGURES.items() if figure.shows == "training"]
# Figures under published/, in the order in which messages list them.
PUBLISHED = [name for name, figure in FIGURES.items() if figure.shows == "published"]


def names() -> list[str]:
    """The names of all figures under results/, sorted."""
    return sorted([*FRONTIERS, *TRAINING])


def get(name: str) -> Figure:
    """The figure with that name. Raises SaemakeError if there is none."""
    if name not in FIGURES:
        raise SaemakeError(f"no figure '{name}'; {nearest(name, FIGURES)}")
    return FIGURES[name]
