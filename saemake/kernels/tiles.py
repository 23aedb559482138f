"""What kernels that go over a matrix tile by tile share: where a program's tile lies, and what it
writes of each column. A program of a one-dimensional grid has whole rows."""

import triton
import triton.language as tl


@triton.jit
def tile_of(rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The rows and columns of the program's tile, whether an element is inside the matrix, and
    where it lies in memory."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    return row, column, inside, row.to(tl.int64)[:, None] * columns + column[None, :]


@triton.jit
def above_zero(values):
    """Whether a value is above 0, or NaN, which must stay so that a loss shows it."""
    return (values > 0) | (values != values)


@triton.jit
def store_sum(sums, which, values, column, columns):
    """Write the tile's sum of each column, as number `which` of its kind [which, group, column]."""
    group = which * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums + group * columns + column, tl.sum(values, axis=0), mask=column < columns)


@triton.jit
def mark(fired, active, column, columns, COLUMNS: tl.constexpr):
    """Write 1 for each column that is active somewhere. Programs write the same number, in any
    order."""
    anywhere = tl.max(active.to(tl.int32), axis=0) > 0
    tl.store(fired + column, tl.full([COLUMNS], 1, tl.int8), mask=anywhere & (column < columns))
