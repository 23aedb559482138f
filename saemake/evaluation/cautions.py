"""Warnings: what a reader of figures should know. They are made of figures when rows are made, and
are not stored with them, so that what was judged before has them too."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from saemake.config import Config
from saemake.evaluation.rows import Row
from saemake.recipes import EvaluationRecipe
from saemake.training.settings import Drop

# How far from the L0 that it was asked for an SAE may land without a warning, as a fraction.
L0_TOLERANCE = 0.15
# How far the zero-ablated loss is above the LM's own at least, as a fraction of that.
ABLATION = 0.01
# How far apart the variance explained by threshold and by top-k may be, and how many times the
# L0 of one that of the other.
THRESHOLD_VARIANCE, THRESHOLD_L0 = 0.1, 1.5
# So far below the fewest components that were judged an L0 is compared with their part of what
# these recover: fewer recover more than their part.
FEWEST_PART = 0.8


@dataclasses.dataclass(frozen=True)
class Names:
    """What an evaluation calls its figures."""

    recovered: str
    explained: str
    clean: str
    ablated: str


NAMES = {
    "dictionary_learning": Names(
        "frac_recovered", "frac_variance_explained", "loss_original", "loss_zero"
    ),
    "sae_bench_core": Names(
        "ce_loss_score", "explained_variance", "ce_loss_without_sae", "ce_loss_with_ablation"
    ),
}
Figures = Mapping[str, float | None]


def of_figures(recipe: EvaluationRecipe, ways: Mapping[str | None, Figures]) -> list[list[str]]:
    """Of each way of choosing latents, in their order, what its figures warn of."""
    return [
        [
            f"{recipe.evaluation}: {line}"
            for line in (
                *_missed_target(recipe, way, figures["l0"]),
                *_no_ablation(NAMES[recipe.evaluation], figures),
                *_far_threshold(NAMES[recipe.evaluation], way, ways),
            )
        ]
        for way, figures in ways.items()
    ]


def _missed_target(recipe: EvaluationRecipe, way: str | None, l0: float | None) -> list[str]:
    target = recipe.target_l0
    if target is None or l0 is None or way == "top_k" or abs(l0 / target - 1) <= L0_TOLERANCE:
        return []
    return [
        f"L0 {l0:.4g} is {abs(l0 / target - 1):.0%} {'over' if l0 > target else 'under'} the target"
        f" {target:g}; a longer training brings it closer"
    ]


def _no_ablation(names: Names, figures: Figures) -> list[str]:
    clean, ablated = figures[names.clean], figures[names.ablated]
    if clean is None or ablated is None or ablated > (1 + ABLATION) * clean:
        return []
    return [
        f"{names.recovered} means nothing: the LM's loss without the layer is {ablated:.4g}, not"
        f" over {ABLATION:.0%} above its own {clean:.4g}"
    ]


def _far_threshold(names: Names, way: str | None, ways: Mapping[str | None, Figures]) -> list[str]:
    if way != "threshold" or "top_k" not in ways:
        return []
    here, there = ways[way], ways["top_k"]
    found, wanted = here[names.explained], there[names.explained]
    l0, k = here["l0"], there["l0"]
    if found is None or wanted is None or l0 is None or k is None:
        return []
    if abs(found - wanted) <= THRESHOLD_VARIANCE and k / THRESHOLD_L0 <= l0 <= k * THRESHOLD_L0:
        return []
    return [
        f"by threshold {names.explained} is {found:.3g} at L0 {l0:.4g}, by top_k {wanted:.3g} at L0"
        f" {k:.4g}: the threshold does not fit; a longer training, or training.drop where a few"
        " activations are many times the others, mends it"
    ]


def not_dropped(config: Config, model: str, evaluation: str) -> list[str]:
    """Where figures are of positions that were left out of training."""
    trained: Drop = config.training_of(model).drop
    judged: Drop = getattr(config.evaluations_of(model), evaluation).drop
    norms = trained.norm_over_median is not None and (
        judged.norm_over_median is None or judged.norm_over_median > trained.norm_over_median
    )
    # SAE Bench's core leaves BOS and EOS out by itself.
    by_id = evaluation != "sae_bench_core" and "special" not in judged.kinds
    if not norms and not (by_id and set(trained.kinds) - set(judged.kinds)):
        return []
    return [
        f"{evaluation}: its figures count positions that were left out of training"
        f" ({trained.said}); set evaluations.{evaluation}.drop as well"
    ]


def beside_pca(rows: Sequence[Row]) -> list[Row]:
    """A sweep's table, with a warning at each SAE that recovers less of the loss than as many
    principal components as its L0: between two numbers of components that were judged, a straight
    line's, which is under a curve that flattens."""
    pca = {row.latents: row for row in rows if row.architecture == "pca"}
    return [
        row.model_copy(update={"warnings": [*row.warnings, *_below_pca(row, pca)]})
        if row.width is not None
        else row
        for row in rows
    ]


def _below_pca(row: Row, pca: Mapping[int, Row]) -> list[str]:
    found = []
    for evaluation, names in NAMES.items():
        figures = getattr(row, evaluation)
        if figures is None or figures.l0 is None:
            continue
        recovered = getattr(figures, names.recovered)
        points = [
            (k, value)
            for k, other in sorted(pca.items())
            if (value := getattr(getattr(other, evaluation), names.recovered, None)) is not None
        ]
        wanted = _between(points, figures.l0)
        if recovered is not None and wanted is not None and recovered < wanted:
            found.append(
                f"{evaluation}: {names.recovered} {recovered:.3g} is below the {wanted:.3g} of"
                f" {figures.l0:.4g} principal components, as many as its L0"
            )
    return found


def _between(points: Sequence[tuple[int, float]], at: float) -> float | None:
    """The straight line between the points on either side, and a little below the first that from
    it to nothing; None elsewhere."""
    if points and FEWEST_PART * points[0][0] <= at < points[0][0]:
        return points[0][1] * at / points[0][0]
    for (low, below), (high, above) in itertools.pairwise(points):
        if low <= at <= high:
            return below + (above - below) * (at - low) / (high - low)
    return None


def of_training(rows: Sequence[Row]) -> list[str]:
    """What the rows warn of that training has told."""
    return [line for row in rows for line in row.warnings if line.startswith("training: ")]


def told(rows: Sequence[Row], but: Sequence[str] = ()) -> str | None:
    """One line for the screen: the first warning of the rows, and how many more there are; None
    where there is none. Those that `but` has were told before."""
    found = [
        (f"{row.name}{f' by {row.inference}' if row.inference else ''}", line)
        for row in rows
        for line in row.warnings
        if line not in but
    ]
    if not found:
        return None
    (name, line), more = found[0], len(found) - 1
    others = f" ({more} more warning{'s' if more > 1 else ''} in metrics.json)" if more else ""
    return f"saemake: {name}: {line}{others}"
