"""Warnings for readers of figures. They are computed from figures when rows are made, and are not
stored with evaluations, so that older evaluations have them too."""

import itertools
import posixpath
from collections.abc import Mapping, Sequence

from saemake import evaluation
from saemake.activations.drop_settings import Drop
from saemake.config.config import Config
from saemake.evaluation.description import Roles
from saemake.metrics.rows import Row
from saemake.recipes.kinds import EvaluationRecipe

# An SAE whose L0 differs from its target by more than this fraction gets a warning.
L0_TOLERANCE = 0.15
# The zero-ablated loss must exceed the LM's own loss by this fraction of it.
ABLATION = 0.01
# Limits between choosing latents by threshold and by top-k: the difference of the variance
# explained, and the ratio of the L0s.
THRESHOLD_VARIANCE, THRESHOLD_L0 = 0.1, 1.5
# An L0 below the fewest judged components is compared with a proportional part of what these
# recover, down to this fraction of their number. Fewer components recover more than that part.
FEWEST_PART = 0.8


Figures = Mapping[str, float | None]


def of_figures(recipe: EvaluationRecipe, ways: Mapping[str | None, Figures]) -> list[list[str]]:
    """The warnings for each way of choosing latents, in the order of `ways`."""
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
    by_threshold, by_top_k = ways[way], ways["top_k"]
    explained, explained_top_k = by_threshold[roles.explained], by_top_k[roles.explained]
    l0, k = by_threshold[roles.l0], by_top_k[roles.l0]
    if explained is None or explained_top_k is None or l0 is None or k is None:
        return []
    close = abs(explained - explained_top_k) <= THRESHOLD_VARIANCE
    if close and k / THRESHOLD_L0 <= l0 <= k * THRESHOLD_L0:
        return []
    return [
        f"by threshold {roles.explained} is {explained:.3g} at L0 {l0:.4g}, by top_k"
        f" {explained_top_k:.3g} at L0 {k:.4g}: the threshold does not fit; train longer, or set"
        " training.drop if a few activations are many times larger than the others"
    ]


def not_dropped(config: Config, model: str, name: str) -> list[str]:
    """A warning if an evaluation's figures count positions that were left out of training. SAE
    Bench's own code says nothing of the positions that it counts."""
    if name not in config.text_evaluations:
        return []
    trained: Drop = config.training_of(model).drop
    judged = config.evaluation_of(model, name).drop
    norms = trained.norm_over_median is not None and (
        judged.norm_over_median is None or judged.norm_over_median > trained.norm_over_median
    )
    by_id = not evaluation.on_text(name).leaves_out_special and "special" not in judged.kinds
    if not norms and not (by_id and set(trained.kinds) - set(judged.kinds)):
        return []
    return [
        f"{name}: its figures count positions that were left out of training"
        f" ({trained.in_words}); set evaluations.{name}.drop as well"
    ]


def beside_pca(rows: Sequence[Row]) -> list[Row]:
    """A sweep's table, with a warning for each SAE that recovers less of the loss than principal
    components of the same L0. Between two judged numbers of components the comparison is with a
    straight line, which lies below the flattening curve."""
    pca = {row.latents: row for row in rows if row.architecture == "pca"}
    return [
        row.model_copy(update={"warnings": [*row.warnings, *_below_pca(row, pca)]})
        if row.width is not None
        else row
        for row in rows
    ]


def _below_pca(row: Row, pca: Mapping[int, Row]) -> list[str]:
    warnings = []
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
        by_pca = _between(points, l0)
        if recovered is not None and by_pca is not None and recovered < by_pca:
            warnings.append(
                f"{name}: {roles.recovered} {recovered:.3g} is below the {by_pca:.3g} of"
                f" {l0:.4g} principal components, as many as its L0"
            )
    return warnings


def _between(points: Sequence[tuple[int, float]], at: float) -> float | None:
    """Linear interpolation between the points on either side. A little below the first point (see
    FEWEST_PART), interpolation between it and the origin. None elsewhere."""
    if points and FEWEST_PART * points[0][0] <= at < points[0][0]:
        return points[0][1] * at / points[0][0]
    for (low, below), (high, above) in itertools.pairwise(points):
        if low <= at <= high:
            return below + (above - below) * (at - low) / (high - low)
    return None


def told(rows: Sequence[Row], before: Sequence[Row] = ()) -> str | None:
    """One line for the screen: which SAE, or how many SAEs of a folder, have warnings. None if none
    has. Leaves out the SAEs that already had warnings in the rows of `before`. Training prints its
    own warnings."""
    said = _warned(before)
    names = [name for name in _warned(rows) if name not in said]
    if not names:
        return None
    if len(names) == 1 and not said:
        return f"{names[0]} has warnings (see metrics.json)"
    folder = posixpath.commonpath([*names, *said])
    more = "more " if said else ""
    saes = "SAE has" if len(names) == 1 else "SAEs have"
    return f"{folder}: {len(names)} {more}{saes} warnings (see metrics.json)"


def _warned(rows: Sequence[Row]) -> list[str]:
    """The SAEs with warnings that are not of training."""
    return list(
        dict.fromkeys(
            row.name
            for row in rows
            if row.width is not None
            and any(not line.startswith("training: ") for line in row.warnings)
        )
    )
