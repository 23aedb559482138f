"""The ReLU of an encoding and the gradient at its values above 0, each with sums over a column in
the same pass over the memory.

Shapes: B rows (tokens), F columns (latents), G groups of rows.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS, WARPS = 64, 128, 8


@triton.jit
def _positive(values, fired, sums, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = row.to(tl.int64)[:, None] * columns + column[None, :]
    f = tl.load(values + at, mask=inside, other=0.0).to(tl.float32)
    active = (f > 0) | (f != f)  # NaN stays, so that a loss shows it
    f = tl.where(active, f, 0.0)
    tl.store(values + at, f.to(tl.bfloat16), mask=inside)
    any_active = tl.max(active.to(tl.int32), axis=0) > 0
    tl.store(fired + column, tl.full([COLUMNS], 1, tl.int8), mask=any_active & (column < columns))
    group = sums + tl.program_id(0) * columns
    tl.store(group + column, tl.sum(f, axis=0), mask=column < columns)


@triton.jit
def _masked(
    gradient, values, result, sums, rows, columns, stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = row.to(tl.int64)[:, None] * columns + column[None, :]
    f = tl.load(values + at, mask=inside, other=0.0).to(tl.float32)
    from_at = row.to(tl.int64)[:, None] * stride + column[None, :]
    g = tl.load(gradient + from_at, mask=inside, other=0.0).to(tl.float32)
    g = tl.where((f > 0) | (f != f), g, 0.0)
    tl.store(result + at, g.to(tl.bfloat16), mask=inside)
    group = sums + tl.program_id(0) * columns
    tl.store(group + column, tl.sum(g, axis=0), mask=column < columns)


@triton.jit
def _add_rows(target, indices, rows_ND, columns, COLUMNS: tl.constexpr):
    index = tl.load(indices + tl.program_id(0)).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    inside = column < columns
    at = target + index * columns + column
    more = tl.load(rows_ND + tl.program_id(0).to(tl.int64) * columns + column, mask=inside)
    tl.store(at, tl.load(at, mask=inside) + more, mask=inside)


def _grid(rows: int, columns: int) -> tuple[int, int]:
    return triton.cdiv(rows, ROWS), triton.cdiv(columns, COLUMNS)


def keep_positive_(values_BF: Tensor) -> tuple[Tensor, Tensor]:
    """Set values below 0 to 0, in place (bfloat16). Returns whether each column has a value above 0
    (bool [F]) and the sum of each column (float32 [F])."""
    rows, columns = values_BF.shape
    grid = _grid(rows, columns)
    fired_F = torch.zeros(columns, dtype=torch.int8, device=values_BF.device)
    sums_GF = torch.empty(grid[0], columns, dtype=torch.float32, device=values_BF.device)
    _positive[grid](
        values_BF, fired_F, sums_GF, rows, columns, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=WARPS
    )
    return fired_F.bool(), sums_GF.sum(0)


def where_positive(gradient_BF: Tensor, values_BF: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient where the value is above 0, else 0 (bfloat16 [B, F]), and the sum of each of its
    columns (float32 [F])."""
    rows, columns = values_BF.shape
    grid = _grid(rows, columns)
    if gradient_BF.stride(1) != 1:
        gradient_BF = gradient_BF.contiguous()
    result_BF = torch.empty_like(values_BF)
    sums_GF = torch.empty(grid[0], columns, dtype=torch.float32, device=values_BF.device)
    _masked[grid](
        gradient_BF,
        values_BF,
        result_BF,
        sums_GF,
        rows,
        columns,
        gradient_BF.stride(0),
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        num_warps=WARPS,
    )
    return result_BF, sums_GF.sum(0)


def add_rows_(target_FD: Tensor, indices_N: Tensor, rows_ND: Tensor) -> None:
    """Add rows to the target's rows with these indices, which must differ from each other, in
    place; float32."""
    columns = target_FD.shape[1]
    _add_rows[(len(indices_N),)](
        target_FD, indices_N, rows_ND, columns, COLUMNS=triton.next_power_of_2(columns), num_warps=4
    )
