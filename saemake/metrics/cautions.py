"""Warnings: what a reader of figures should know. They are made of figures when rows are made, and
are not stored with them, so that what was judged before has them too."""

import itertools
from collections.abc import Mapping, Sequence

from saemake import evaluation
from saemake.activations.drop_settings import Drop
from saemake.config.config import Config
from saemake.evaluation.description import Roles
from saemake.metrics.rows import Row
from saemake.recipes import EvaluationRecipe

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


Figures = Mapping[str, float | None]


def of_figures(recipe: EvaluationRecipe, ways: Mapping[str | None, Figures]) -> list[list[str]]:
    """Of each way of choosing latents, in their order, what its figures warn of."""
    roles = evaluation.get(recipe.evaluation).roles
    if roles is None:
        return [[] for _ in ways]
    return [
        [
            f"{recipe.evaluation}: {line}"
            for line in (
                *_missed_target(recipe, way, figures[roles.l0]),
                *_no_ablation(roles, figures),
                *_far_threshold(roles, way, ways),
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


def _no_ablation(roles: Roles, figures: Figures) -> list[str]:
    clean, ablated = figures[roles.clean], figures[roles.ablated]
    if clean is None or ablated is None or ablated > (1 + ABLATION) * clean:
        return []
    return [
        f"{roles.recovered} means nothing: the LM's loss without the layer is {ablated:.4g}, not"
        f" over {ABLATION:.0%} above its own {clean:.4g}"
    ]


def _far_threshold(roles: Roles, way: str | None, ways: Mapping[str | None, Figures]) -> list[str]:
    if way != "threshold" or "top_k" not in ways:
        return []
    here, there = ways[way], ways["top_k"]
    found, wanted = here[roles.explained], there[roles.explained]
    l0, k = here[roles.l0], there[roles.l0]
    if found is None or wanted is None or l0 is None or k is None:
        return []
    if abs(found - wanted) <= THRESHOLD_VARIANCE and k / THRESHOLD_L0 <= l0 <= k * THRESHOLD_L0:
        return []
    return [
        f"by threshold {roles.explained} is {found:.3g} at L0 {l0:.4g}, by top_k {wanted:.3g} at L0"
        f" {k:.4g}: the threshold does not fit; a longer training, or training.drop where a few"
        " activations are many times the others, mends it"
    ]


def not_dropped(config: Config, model: str, name: str) -> list[str]:
    """Where an evaluation's figures are of positions that were left out of training."""
    trained: Drop = config.training_of(model).drop
    judged = config.evaluation_of(model, name).drop
    norms = trained.norm_over_median is not None and (
        judged.norm_over_median is None or judged.norm_over_median > trained.norm_over_median
    )
    by_id = not evaluation.get(name).leaves_out_special and "special" not in judged.kinds
    if not norms and not (by_id and set(trained.kinds) - set(judged.kinds)):
        return []
    return [
        f"{name}: its figures count positions that were left out of training"
        f" ({trained.in_words}); set evaluations.{name}.drop as well"
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
    for name in evaluation.names():
        roles = evaluation.get(name).roles
        l0 = row.figure(name, roles.l0) if roles else None
        if roles is None or l0 is None:
            continue
        recovered = row.figure(name, roles.recovered)
        points = [
            (k, value)
            for k, other in sorted(pca.items())
            if (value := other.figure(name, roles.recovered)) is not None
        ]
        wanted = _between(points, l0)
        if recovered is not None and wanted is not None and recovered < wanted:
            found.append(
                f"{name}: {roles.recovered} {recovered:.3g} is below the {wanted:.3g} of"
                f" {l0:.4g} principal components, as many as its L0"
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
