"""The ReLU of an encoding and the gradient at its values above 0, each with sums over a column in
the same pass over the memory.

Shapes: B rows (tokens), F columns (latents), G groups of rows.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from saemake.kernels.tiles import above_zero, mark, store_sum, tile_of

ROWS, COLUMNS, WARPS = 128, 64, 8


@triton.jit
def power(f, p):
    """f**p of values above 0, and 0 of others."""
    return tl.where(f > 0, tl.exp2(p * tl.log2(tl.where(f > 0, f, 1.0))), 0.0)


@triton.jit
def _positive(
    values,
    powers,
    fired,
    sums,
    power_sums,
    rows,
    columns,
    POWERS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    _, column, inside, at = tile_of(rows, columns, ROWS, COLUMNS)
    f = tl.load(values + at, mask=inside, other=0.0).to(tl.float32)
    active = above_zero(f)
    f = tl.where(active, f, 0.0)
    tl.store(values + at, f, mask=inside)
    mark(fired, active, column, columns, COLUMNS)
    store_sum(sums, 0, f, column, columns)
    if POWERS:
        for which in tl.static_range(2):
            raised = power(f, tl.load(powers + which))
            store_sum(power_sums, which, raised, column, columns)


@triton.jit
def _masked(
    gradient,
    values,
    column_gradient,
    power_gradient,
    powers,
    result,
    sums,
    rows,
    columns,
    stride,
    BY_COLUMN: tl.constexpr,
    POWERS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row, column, inside, at = tile_of(rows, columns, ROWS, COLUMNS)
    f = tl.load(values + at, mask=inside, other=0.0).to(tl.float32)
    from_at = row.to(tl.int64)[:, None] * stride + column[None, :]
    g = tl.load(gradient + from_at, mask=inside, other=0.0).to(tl.float32)
    if BY_COLUMN:
        g += tl.load(column_gradient + column, mask=column < columns, other=0.0)[None, :]
    if POWERS:
        p = tl.load(powers)
        g += tl.load(power_gradient) * p * power(f, p - 1)
    g = tl.where(above_zero(f), g, 0.0)
    tl.store(result + at, g, mask=inside)
    store_sum(sums, 0, g, column, columns)


@triton.jit
def _add_rows(target, indices, rows_ND, columns, COLUMNS: tl.constexpr):
    index = tl.load(indices + tl.program_id(0)).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    inside = column < columns
    at = target + index * columns + column
    more = tl.load(rows_ND + tl.program_id(0).to(tl.int64) * columns + column, mask=inside)
    tl.store(at, tl.load(at, mask=inside) + more, mask=inside)


def grid_of(values_BF: Tensor) -> tuple[int, int]:
    """The programs of a kernel whose tiles cover the matrix."""
    return triton.cdiv(len(values_BF), ROWS), triton.cdiv(values_BF.shape[1], COLUMNS)


def sums_for(values_BF: Tensor, count: int) -> Tensor:
    """Room for `count` sums of each column and group of rows: float32 [count, G, F]."""
    shape = (count, grid_of(values_BF)[0], values_BF.shape[1])
    return torch.empty(shape, dtype=torch.float32, device=values_BF.device)


def keep_positive_(
    values_BF: Tensor, powers: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Set values below 0 to 0, in place (bfloat16). Returns whether each column has a value above 0
    or NaN (bool [F]), the sum of each column (float32 [F]), and for two exponents `powers` (float32
    [2]) the sum of all values**exponent (float32 [2])."""
    rows, columns = values_BF.shape
    fired_F = torch.zeros(columns, dtype=torch.int8, device=values_BF.device)
    sums = sums_for(values_BF, 1)
    power_sums = None if powers is None else sums_for(values_BF, 2)
    _positive[grid_of(values_BF)](
        values_BF,
        sums if powers is None else powers,
        fired_F,
        sums,
        sums if power_sums is None else power_sums,
        rows,
        columns,
        POWERS=powers is not None,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        num_warps=WARPS,
    )
    power_totals = None if power_sums is None else power_sums.flatten(1).sum(1)
    return fired_F.bool(), sums[0].sum(0), power_totals


def where_positive(
    gradient_BF: Tensor,
    values_BF: Tensor,
    column_gradient_F: Tensor | None = None,
    power_gradient: Tensor | None = None,
    powers: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The gradient where the value is above 0, else 0 (bfloat16 [B, F]), and the sum of each of its
    columns (float32 [F]). To the gradient are added `column_gradient_F` (that of a column's sum)
    and that of the sum of values**powers[0], times `power_gradient` (scalar)."""
    rows, columns = values_BF.shape
    if gradient_BF.stride(1) != 1:
        gradient_BF = gradient_BF.contiguous()
    result_BF = torch.empty_like(values_BF)
    sums = sums_for(values_BF, 1)
    _masked[grid_of(values_BF)](
        gradient_BF,
        values_BF,
        sums if column_gradient_F is None else column_gradient_F,
        sums if power_gradient is None else power_gradient,
        sums if powers is None else powers,
        result_BF,
        sums,
        rows,
        columns,
        gradient_BF.stride(0),
        BY_COLUMN=column_gradient_F is not None,
        POWERS=power_gradient is not None,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        num_warps=WARPS,
    )
    return result_BF, sums[0].sum(0)


def add_rows_(target_FD: Tensor, indices_N: Tensor, rows_ND: Tensor) -> None:
    """Add rows to the target's rows with these indices, which must differ from each other, in
    place; float32."""
    columns = target_FD.shape[1]
    _add_rows[(len(indices_N),)](
        target_FD, indices_N, rows_ND, columns, COLUMNS=triton.next_power_of_2(columns), num_warps=4
    )
