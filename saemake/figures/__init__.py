"""The registry of figures. Names and paths need nothing else, so this module imports no plotting
library.

One more frontier or training figure is one more entry here. One more kind of figure is also a
module of this package with a function `draw(figure, rows, title)`.
"""

from dataclasses import dataclass
from typing import Any, Literal

from saemake.base.errors import SaemakeError, nearest

Kind = Literal[
    "frontier",
    "training",
    "rebuilt",
    "match",
    "panels",
    "scaling",
    "course",
    "sizes",
    "difference",
    "beside",
]


@dataclass(frozen=True)
class Panel:
    """A column of metrics.json as an axis. `flipped` shows 1 - the figure."""

    column: str
    label: str
    flipped: bool = False

    @property
    def evaluation(self) -> str:
        return self.column.partition(".")[0]


@dataclass(frozen=True)
class Figure:
    """How a figure is made. `kind` is the module of this package that draws it. `shows` says whose
    tables it reads: a suite's sweeps, these and their checkpoints ("training"), or the published
    SAEs of a layer. `table` is the name of the file that it reads of each. `x` and `y` are columns
    of these tables, and `label` names y on the axis. L0 is the column `l0`, whichever evaluation
    has it. A figure of several evaluations has `panels`. One `at_width` shows a single width, which
    its name ends with: `..._at_16k`. A plain run draws those that are `by_default`, if the suite
    has their evaluation."""

    kind: Kind
    shows: Literal["suite", "training", "published"]
    table: str
    label: str
    x: str = ""
    y: str = ""
    panels: tuple[Panel, ...] = ()
    at_width: bool = False
    by_default: bool = True

    @property
    def evaluation(self) -> str:
        """The evaluation of y; empty of a figure with panels."""
        return self.y.partition(".")[0]


def _frontier(evaluation: str, quality: str, label: str) -> Figure:
    x, y = f"{evaluation}.l0", f"{evaluation}.{quality}"
    return Figure("frontier", "suite", "metrics.json", label, x=x, y=y)


def _by_sae_bench(panel: Panel) -> Figure:
    """The figure of one evaluation as it is, not flipped."""
    label = f"{panel.label.removeprefix('1 - ')} (less is better)" if panel.flipped else panel.label
    return Figure("frontier", "suite", "metrics.json", label, x="l0", y=panel.column)


# What SAE Bench's paper shows of each evaluation. Of absorption it shows 1 - the figure.
CORE = Panel("sae_bench_core.ce_loss_score", "loss recovered")
AUTOINTERP = Panel("sae_bench_autointerp.autointerp_score", "automated interpretability")
ABSORPTION = Panel(
    "sae_bench_absorption.mean_absorption_fraction_score", "1 - absorption", flipped=True
)
PROBING = Panel("sae_bench_sparse_probing.sae_top_1_test_accuracy", "sparse probing, 1 latent")
SAE_PROBES = Panel("sae_bench_sae_probes.sae_top_1_test_accuracy", "sae-probes, 1 latent")
SCR = Panel("sae_bench_scr.scr_metric_threshold_20", "SCR, 20 latents")
TPP = Panel("sae_bench_tpp.tpp_threshold_20_total_metric", "TPP, 20 latents")
RAVEL = Panel("sae_bench_ravel.disentanglement_score", "RAVEL, disentanglement")
UNLEARNING = Panel("sae_bench_unlearning.unlearning_score", "unlearning")
ALL = (CORE, AUTOINTERP, ABSORPTION, PROBING, SAE_PROBES, SCR, TPP, RAVEL, UNLEARNING)
SCALED = (CORE, AUTOINTERP, ABSORPTION, PROBING, SCR, RAVEL)


def _sizes(evaluation: str, column: str, label: str, sizes: tuple[int, ...]) -> tuple[Panel, ...]:
    return tuple(
        Panel(f"{evaluation}.{column.format(n)}", f"{label}, {n} latent{'s' * (n > 1)}")
        for n in sizes
    )


SIZES = (
    *_sizes("sae_bench_scr", "scr_metric_threshold_{}", "SCR", (5, 10, 20, 50, 100, 500)),
    *_sizes(
        "sae_bench_tpp",
        "tpp_threshold_{}_total_metric",
        "TPP",
        (5, 10, 20, 50, 100, 500),
    ),
    *_sizes(
        "sae_bench_sparse_probing",
        "sae_top_{}_test_accuracy",
        "sparse probing",
        (1, 2, 5),
    ),
)


def _of_paper(kind: Any, panels: tuple[Panel, ...], x: str, **more: Any) -> Figure:
    shows = more.pop("shows", "suite")
    return Figure(kind, shows, "metrics.json", "", x=x, panels=panels, by_default=False, **more)


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
    **{f"{panel.evaluation}_vs_l0": _by_sae_bench(panel) for panel in ALL if panel is not CORE},
    "evaluations_vs_l0": _of_paper("panels", ALL, "l0", at_width=True),
    "evaluations_vs_width": _of_paper("scaling", SCALED, "latents"),
    "evaluations_vs_tokens": _of_paper("course", ALL, "tokens", shows="training", at_width=True),
    "evaluations_by_size": _of_paper("sizes", SIZES, "l0", at_width=True),
    "evaluations_width_difference": _of_paper("difference", SCALED, "l0"),
    "rebuilt_and_published": Figure(
        "rebuilt", "published", "against_catalogue.json", "loss recovered"
    ),
    "sae_bench_rebuilt_and_published": Figure(
        "beside", "published", "comparison.json", "", x="l0", panels=ALL
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
# Between the name of a figure and the width that it shows.
AT_WIDTH = "_at_"


def names() -> list[str]:
    """The names of all figures under results/, sorted; those that show one width without it."""
    return sorted(name for name, figure in FIGURES.items() if figure.shows != "published")


def at_width(name: str, width: str) -> str:
    """The name of a figure that shows one width."""
    return f"{name}{AT_WIDTH}{width}"


def split(name: str) -> tuple[str, str | None]:
    """A figure's name without the width that it shows, and that width; None where it shows all."""
    if name in FIGURES:
        return name, None
    plain, _, width = name.rpartition(AT_WIDTH)
    return (plain, width) if plain in FIGURES and FIGURES[plain].at_width else (name, None)


def get(name: str) -> Figure:
    """The figure with that name. Raises SaemakeError if there is none."""
    plain, _ = split(name)
    if plain not in FIGURES:
        raise SaemakeError(f"no figure '{name}'; {nearest(name, FIGURES)}")
    return FIGURES[plain]
