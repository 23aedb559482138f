"""The registry of figures. Names and paths need nothing else, so this module imports no plotting
library.

Any numeric column of metrics.json has figures without an entry here, by names such as
`sae_bench_core.kl_div_score_vs_l0` (see `of_column`). One more frontier or training figure under a
name of its own is one more entry. One more kind of figure is also a module of this package with a
function `draw(figure, rows, title)`.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from saemake.base.errors import SaemakeError, nearest

# Whoever changes how figures look raises it: they are drawn again.
VERSION = 3

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
    "stability",
    "histogram",
    "curves",
    "own",
]


# Ends the file of what an evaluation saw of each latent.
LATENTS = "_latents.parquet"


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
    tables it reads: a suite's sweeps, these and their checkpoints ("training"), how the latents of
    sweeps recur in other seeds ("seeds"), or the published SAEs of a layer. `table` is the name of
    the file that it reads of each. `x` and `y` are columns of these tables, and `label` names y on
    the axis. L0 is the column `l0`, whichever evaluation
    has it; a frontier takes that of its own evaluation (x), where there is one. A figure of several
    evaluations has `panels`. One that is `at_width` shows a single width, which its name ends with
    (`..._at_16k`); `get` gives it that `width`. One `by` a column has a panel for each value of it.
    The column `hue` gives the colours of a figure of the config. One of what lies `beside` the
    tables reads that file of each SAE. A plain run draws those that are `by_default`, if the suite
    has their evaluation."""

    kind: Kind
    shows: Literal["suite", "training", "seeds", "published"]
    table: str
    label: str
    x: str = ""
    y: str = ""
    panels: tuple[Panel, ...] = ()
    at_width: bool = False
    width: str | None = None
    by: str = ""
    hue: str = "architecture"
    beside: str = ""
    by_default: bool = True

    @property
    def evaluation(self) -> str:
        """The evaluation that it shows; empty of a figure with panels, or of none."""
        if self.beside:
            return self.beside.removesuffix(LATENTS) if self.beside.endswith(LATENTS) else ""
        return self.y.partition(".")[0]


def _frontier(y: str) -> Figure:
    x = f"{y.partition('.')[0]}.l0"
    return Figure("frontier", "suite", "metrics.json", label_of(y), x=x, y=y)


def _not_flipped(panel: Panel) -> str:
    """The label of a panel's column as it is."""
    return f"{panel.label.removeprefix('1 - ')} (less is better)" if panel.flipped else panel.label


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


# Columns in plain words, the same in every figure. Columns of dictionary_learning name no owner.
LABELS = {
    "l0": "L0 (active latents a token)",
    "tokens": "tokens trained on",
    "latents": "latents",
    "layer": "layer",
    "dictionary_learning.l0": "L0",
    "dictionary_learning.frac_recovered": "loss recovered",
    "dictionary_learning.frac_variance_explained": "variance explained",
    "dictionary_learning.frac_alive": "share of latents that fire",
    "sae_bench_core.l0": "L0 (SAE Bench core)",
    "sae_bench_core.ce_loss_score": "loss recovered (SAE Bench core)",
    "sae_bench_core.kl_div_score": "KL score (SAE Bench core)",
    "sae_bench_core.explained_variance": "variance explained (SAE Bench core)",
    "sae_bench_core.frac_alive": "share of latents that fire (SAE Bench core)",
    "sae_bench_core.freq_over_10_percent": "share of latents over 10 % of tokens",
    "sae_bench_core.average_max_decoder_cosine_sim": "largest decoder cosine, mean",
    "sae_bench_core.average_max_encoder_cosine_sim": "largest encoder cosine, mean",
    **{panel.column: _not_flipped(panel) for panel in (*SIZES, *ALL) if panel is not CORE},
}


def label_of(column: str) -> str:
    """A column of metrics.json as the label of an axis: in plain words, or else by its name, which
    can be searched for."""
    evaluation, _, figure = column.partition(".")
    return LABELS.get(column, f"{figure} ({evaluation})" if figure else column)


def _plain(column: str) -> Panel:
    return Panel(column, label_of(column))


DEAD = Panel("sae_bench_core.frac_alive", "share of dead latents", flipped=True)
# A suite at a glance.
OVERVIEW = (
    _plain("dictionary_learning.frac_recovered"),
    _plain("sae_bench_core.ce_loss_score"),
    _plain("sae_bench_core.kl_div_score"),
    _plain("dictionary_learning.frac_variance_explained"),
    DEAD,
    _plain("sae_bench_core.freq_over_10_percent"),
    _plain("sae_bench_core.average_max_decoder_cosine_sim"),
    _plain("sae_bench_core.average_max_encoder_cosine_sim"),
    *(panel for panel in ALL if panel is not CORE),
)
# Columns of stability.json.
STABILITY = (
    Panel("shared", "share of latents that two seeds share"),
    Panel("live_shared", "the same of latents that fire"),
    Panel("shared_by_decoder", "matched over 0.7 by decoder directions"),
    Panel("shared_by_encoder", "matched over 0.7 by encoder directions"),
    Panel("same_partner", "both matchings choose the same partner"),
    Panel("decoder_mean_cosine", "mean cosine of matched decoder directions"),
)
# Columns of training.csv.
TRAINING_CURVES = (
    Panel("loss", "loss"),
    Panel("frac_variance_explained", "variance explained"),
    Panel("l0", "L0"),
    Panel("dead", DEAD.label),
)


def _histogram(file: str, column: str, label: str) -> Figure:
    return Figure(
        "histogram", "suite", "metrics.json", label, x=column, beside=file, by_default=False
    )


def _of_paper(kind: Any, panels: tuple[Panel, ...], x: str, **more: Any) -> Figure:
    shows = more.pop("shows", "suite")
    return Figure(kind, shows, "metrics.json", "", x=x, panels=panels, by_default=False, **more)


FIGURES: dict[str, Figure] = {
    "loss_recovered_vs_l0": _frontier("dictionary_learning.frac_recovered"),
    "variance_explained_vs_l0": _frontier("dictionary_learning.frac_variance_explained"),
    "core_loss_recovered_vs_l0": _frontier("sae_bench_core.ce_loss_score"),
    "dead_latents_vs_l0": Figure(
        "frontier",
        "suite",
        "metrics.json",
        DEAD.label,
        x="l0",
        y=DEAD.column,
        panels=(DEAD,),
        by_default=False,
    ),
    "overview": _of_paper("panels", OVERVIEW, "l0"),
    "latent_densities": _histogram(
        f"sae_bench_core{LATENTS}",
        "feature_density",
        "share of tokens on which a latent fires",
    ),
    "decoder_similarities": _histogram(
        f"sae_bench_core{LATENTS}",
        "max_decoder_cosine_sim",
        "largest decoder cosine with another latent",
    ),
    "training_curves": Figure(
        "curves",
        "suite",
        "metrics.json",
        "",
        x="tokens",
        panels=TRAINING_CURVES,
        beside="training.csv",
        by_default=False,
    ),
    "loss_recovered_vs_tokens": Figure(
        "training",
        "training",
        "metrics.json",
        "loss recovered",
        x="tokens",
        y="dictionary_learning.frac_recovered",
    ),
    "stability_vs_l0": Figure("stability", "seeds", "stability.json", "", x="l0", panels=STABILITY),
    **{f"{panel.evaluation}_vs_l0": _frontier(panel.column) for panel in ALL if panel is not CORE},
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
SEEDS = [name for name, figure in FIGURES.items() if figure.shows == "seeds"]
TRAINING = [name for name, figure in FIGURES.items() if figure.shows == "training"]
# Figures under published/, in the order in which messages list them.
PUBLISHED = [name for name, figure in FIGURES.items() if figure.shows == "published"]
# Between the name of a figure and the width that it shows.
AT_WIDTH = "_at_"
# Ends the name of a frontier that has a panel for each width.
BY_WIDTH = "_by_width"
# The names of the figures of any column, and of a frontier by width.
COLUMN = r"[a-z][a-z0-9_]*\.[A-Za-z][A-Za-z0-9_]*"
# What such a figure shows the column against.
AGAINST = ("l0", "tokens", "width")
OF_COLUMN = re.compile(f"(?P<column>{COLUMN})_vs_(?P<x>{'|'.join(AGAINST)})")


def names() -> list[str]:
    """The names of all figures under results/, sorted; those that show one width without it, and
    without those of any column."""
    return sorted(name for name, figure in FIGURES.items() if figure.shows != "published")


def patterns() -> list[str]:
    """Regular expressions for the names of all figures under results/."""
    named = [f"{name}{AT_WIDTH}[^/]+" if FIGURES[name].at_width else name for name in names()]
    column = re.sub(r"\?P<[a-z0-9]+>", "?:", OF_COLUMN.pattern)
    by_width = [f"{frontier}{BY_WIDTH}" for frontier in (*FRONTIERS, f"{COLUMN}_vs_l0")]
    return [*named, *by_width, column]


def at_width(name: str, width: str) -> str:
    """The name of a figure that shows one width."""
    return f"{name}{AT_WIDTH}{width}"


def split(name: str) -> tuple[str, str | None]:
    """A figure's name without the width that it shows, and that width; None where it shows all."""
    if name in FIGURES:
        return name, None
    plain, _, width = name.rpartition(AT_WIDTH)
    return (plain, width) if plain in FIGURES and FIGURES[plain].at_width else (name, None)


def of_column(name: str) -> Figure | None:
    """The figure of any column of metrics.json, by the name `{evaluation}.{column}_vs_{x}`: against
    L0, against the tokens trained on (of checkpoints), or its mean against the number of latents.
    None if the name is not of that form."""
    match = OF_COLUMN.fullmatch(name)
    if match is None:
        return None
    column = match["column"]
    panel, file = _plain(column), "metrics.json"
    if match["x"] == "width":
        return Figure("scaling", "suite", file, panel.label, x="latents", y=column, panels=(panel,))
    if match["x"] == "tokens":
        return Figure("training", "training", file, panel.label, x="tokens", y=column)
    return _frontier(column)


def get(name: str) -> Figure:
    """The figure with that name. Raises SaemakeError if there is none."""
    if name.endswith(BY_WIDTH):
        frontier = get(name.removesuffix(BY_WIDTH))
        if frontier.kind == "frontier":
            return replace(frontier, by="width", by_default=False)
    plain, width = split(name)
    figure = FIGURES.get(plain) or of_column(name)
    if figure is None:
        raise SaemakeError(f"no figure '{name}'; {nearest(name, FIGURES)}")
    return figure if width is None else replace(figure, width=width)
