"""One step of Adam over the rows of a matrix: gradient clipping, the projection of gradients, Adam
and unit norm in two passes over the memory, where separate operations take about ten.

Shapes: R rows (latents), D the model's width.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from saemake.kernels.tiles import tile_of

# Numbers of a program's tile. The warps were the fastest of 4, 8 and 16 (docs/performance.md).
TILE = 4096
MEASURE_WARPS = {True: 8, False: 4}  # whether a row has more than half a tile
UPDATE_WARPS = 16


@dataclass(frozen=True)
class Rule:
    """How a matrix is updated. `along_epsilon`: the gradient's part along the row is removed, with
    rows divided by their norm plus this number; -1: rows are not divided; None: nothing is removed.
    `clipped_first`: the joint norm is that of gradients before the projection. `norm_epsilon`: rows
    are divided by their norm plus this number after the step; None: they are not."""

    along_epsilon: float | None = None
    clipped_first: bool = True
    norm_epsilon: float | None = None


@triton.jit
def _measure(
    gradient,
    weight,
    pull,
    along,
    squares,
    rows,
    columns,
    epsilon,
    PULL: tl.constexpr,
    PROJECT: tl.constexpr,
    DIVIDE: tl.constexpr,
    CLIPPED_FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row, _, inside, at = tile_of(rows, columns, ROWS, COLUMNS)
    g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    if PULL or PROJECT:
        w = tl.load(weight + at, mask=inside, other=0.0)
    if PULL:
        g += tl.load(pull + row, mask=row < rows, other=0.0)[:, None] * w
    square = tl.sum(g * g, axis=1)
    if PROJECT:
        dot = tl.sum(g * w, axis=1)
        length = tl.sum(w * w, axis=1)
        if DIVIDE:
            divisor = tl.sqrt(length) + epsilon
            dot = dot / (divisor * divisor)
        tl.store(along + row, dot, mask=row < rows)
        if not CLIPPED_FIRST:
            rest = g - dot[:, None] * w
            square = tl.sum(rest * rest, axis=1)
    tl.store(squares + row, square, mask=row < rows)


@triton.jit
def _update(
    gradient,
    weight,
    mean,
    variance,
    pull,
    along,
    clip,
    now,
    copy,
    rows,
    columns,
    rest1,
    beta2,
    rest2,
    epsilon,
    norm_epsilon,
    PULL: tl.constexpr,
    CLIP: tl.constexpr,
    PROJECT: tl.constexpr,
    NORM: tl.constexpr,
    COPY: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row, _, inside, at = tile_of(rows, columns, ROWS, COLUMNS)
    g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + at, mask=inside, other=0.0)
    m = tl.load(mean + at, mask=inside, other=0.0)
    v = tl.load(variance + at, mask=inside, other=0.0)
    if PULL:
        g += tl.load(pull + row, mask=row < rows, other=0.0)[:, None] * w
    if PROJECT:
        a = tl.load(along + row, mask=row < rows, other=0.0)
        g = g - a[:, None] * w
    if CLIP:
        g = g * tl.load(clip)
    rate = tl.load(now)
    correction1 = tl.load(now + 1)
    correction2 = tl.load(now + 2)
    m = m + (g - m) * rest1
    v = v * beta2 + g * g * rest2
    tl.store(mean + at, m, mask=inside)
    tl.store(variance + at, v, mask=inside)
    w = w - (rate / correction1) * m / (tl.sqrt(v) / tl.sqrt(correction2) + epsilon)
    if NORM:
        length = tl.sqrt(tl.sum(w * w, axis=1)) + norm_epsilon
        w = w / length[:, None]
    tl.store(weight + at, w, mask=inside)
    if COPY:
        tl.store(copy + at, w.to(copy.dtype.element_ty), mask=inside)


def _tile(columns: int) -> tuple[int, int]:
    """Rows and columns of a program's tile; all columns of a row lie in one tile."""
    wide = triton.next_power_of_2(columns)
    return max(TILE // wide, 1), wide


def measure(
    weight_RD: Tensor,
    gradient_RD: Tensor,
    rule: Rule,
    squares_R: Tensor,
    pull_R: Tensor | None = None,
) -> Tensor | None:
    """Fill `squares_R` (float32) with each row's sum of squares of the gradient, which the joint
    norm is made of. The row times `pull_R` is part of the gradient. Returns each row's coefficient
    of the part along the row (float32 [R]), None without a projection."""
    rows, columns = weight_RD.shape
    projects = rule.along_epsilon is not None
    along_R = torch.empty_like(squares_R) if projects else None
    tile = _tile(columns)
    _measure[(triton.cdiv(rows, tile[0]),)](
        gradient_RD,
        weight_RD,
        squares_R if pull_R is None else pull_R,
        squares_R if along_R is None else along_R,
        squares_R,
        rows,
        columns,
        rule.along_epsilon or 0.0,
        PULL=pull_R is not None,
        PROJECT=projects,
        DIVIDE=rule.along_epsilon is not None and rule.along_epsilon >= 0,
        CLIPPED_FIRST=rule.clipped_first,
        ROWS=tile[0],
        COLUMNS=tile[1],
        num_warps=MEASURE_WARPS[2 * tile[1] > TILE],
    )
    return along_R


def update_(
    weight_RD: Tensor,
    gradient_RD: Tensor,
    moments: tuple[Tensor, Tensor],
    rule: Rule,
    along_R: Tensor | None,
    clip: Tensor | None,
    now: Tensor,
    betas: tuple[float, float],
    epsilon: float,
    copy_RD: Tensor | None = None,
    pull_R: Tensor | None = None,
) -> None:
    """Update weight and moments in place, and fill `copy_RD` with the new weight in its dtype.

    `pull_R` is as in `measure`, `along_R` is what `measure` returned, `clip` (float32 scalar)
    scales the gradient, `now` (float32 [3]) has the learning rate and 1 - beta**t of both betas.
    """
    rows, columns = weight_RD.shape
    tile = _tile(columns)
    _update[(triton.cdiv(rows, tile[0]),)](
        gradient_RD,
        weight_RD,
        *moments,
        now if pull_R is None else pull_R,
        now if along_R is None else along_R,
        now if clip is None else clip,
        now,
        weight_RD if copy_RD is None else copy_RD,
        rows,
        columns,
        1 - betas[0],
        betas[1],
        1 - betas[1],
        epsilon,
        rule.norm_epsilon or 0.0,
        PULL=pull_R is not None,
        CLIP=clip is not None,
        PROJECT=along_R is not None,
        NORM=rule.norm_epsilon is not None,
        COPY=copy_RD is not None,
        ROWS=tile[0],
        COLUMNS=tile[1],
        num_warps=UPDATE_WARPS,
    )


def measured(weight_RD: Tensor, gradient_RD: Tensor, rule: Rule) -> tuple[Tensor, Tensor | None]:
    """What `measure` computes, by torch: the sums of squares, the coefficients."""
    if rule.along_epsilon is None:
        return gradient_RD.square().sum(1), None
    along_R = (gradient_RD * weight_RD).sum(1)
    if rule.along_epsilon >= 0:
        along_R = along_R / (weight_RD.norm(dim=1) + rule.along_epsilon).square()
    projected_RD = gradient_RD - along_R[:, None] * weight_RD
    return (gradient_RD if rule.clipped_first else projected_RD).square().sum(1), along_R


def updated(
    weight_RD: Tensor,
    gradient_RD: Tensor,
    moments: tuple[Tensor, Tensor],
    rule: Rule,
    along_R: Tensor | None,
    clip: Tensor | None,
    now: Tensor,
    betas: tuple[float, float],
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `update_` computes, by torch: weight and moments."""
    rate, correction1, correction2 = now
    if along_R is not None:
        gradient_RD = gradient_RD - along_R[:, None] * weight_RD
    if clip is not None:
        gradient_RD = gradient_RD * clip
    mean_RD = moments[0].lerp(gradient_RD, 1 - betas[0])
    variance_RD = moments[1] * betas[1] + gradient_RD.square() * (1 - betas[1])
    scale_RD = variance_RD.sqrt() / correction2.sqrt() + epsilon
    weight_RD = weight_RD - rate / correction1 * mean_RD / scale_RD
    if rule.norm_epsilon is not None:
        weight_RD = weight_RD / (weight_RD.norm(dim=1, keepdim=True) + rule.norm_epsilon)
    return weight_RD, mean_RD, variance_RD
