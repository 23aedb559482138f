"""The largest of each row and the largest of a whole matrix, in bfloat16, with what a training step
needs to know of them.

The k-th largest value is found by its bits, from counts, which are whole numbers: the result is
exact and the same each time. Of equal values the ones further left, and further up, are kept.

Shapes: B rows (tokens), F columns (latents).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from saemake.kernels.tiles import above_zero

# Columns that a program holds in registers. Longer rows are read again and again, from a cache.
CHUNK = 16384
# Values of a bin of the first histogram: 2**7 bit patterns.
LOW_BITS = 7


def _warps(chunk: int) -> int:
    """So many that a thread holds at most 32 columns."""
    return max(min(chunk // 1024, 16), 1)


@triton.jit
def _keys(values):
    """Integers that sort like the bfloat16 values."""
    bits = values.to(tl.int16, bitcast=True).to(tl.int32)
    return tl.where(bits < 0, bits ^ 0x7FFF, bits)


@triton.jit
def _load_keys(row, column, columns):
    values = tl.load(row + column, mask=column < columns, other=float("-inf"))
    return tl.where(column < columns, _keys(values), -32769)


@triton.jit
def _write(row, column, columns, kept):
    """Store the kept values, with 0 for those below 0 and elsewhere. Returns the smallest kept
    value above 0."""
    values = tl.load(row + column, mask=column < columns, other=0.0).to(tl.float32)
    active = kept & above_zero(values)
    tl.store(row + column, tl.where(active, values, 0.0), mask=column < columns)
    return tl.min(tl.where(active, values, float("inf")))


@triton.jit
def _top_of_rows(
    values,
    fired,
    least,
    limits,
    k,
    columns,
    LIMITED: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    used = columns
    if LIMITED:
        k = tl.load(limits)
        used = tl.minimum(tl.load(limits + 1), columns)
    row = values + tl.program_id(0).to(tl.int64) * columns
    lanes = tl.arange(0, CHUNK)
    if CHUNKS == 1:
        keys = _load_keys(row, lanes, used)
    bound = -32768
    if CHUNKS == 1:
        for bit in tl.static_range(15, -1, -1):
            tried = bound + (1 << bit)
            count = tl.sum((keys >= tried).to(tl.int32))
            bound = tl.where(count >= k, tried, bound)
        over = tl.sum((keys > bound).to(tl.int32))
        equals = tl.sum((keys == bound).to(tl.int32))
    else:
        # Two bits in a pass; a lane's three counts share an integer.
        for pair in tl.static_range(14, -1, -2):
            counts = tl.zeros([CHUNK], tl.int32)
            for chunk in range(CHUNKS):
                keys = _load_keys(row, lanes + chunk * CHUNK, used)
                counts += (keys >= bound + (1 << pair)).to(tl.int32)
                counts += (keys >= bound + (2 << pair)).to(tl.int32) << 10
                counts += (keys >= bound + (3 << pair)).to(tl.int32) << 20
            steps = (tl.sum(counts & 1023) >= k).to(tl.int32)
            steps += (tl.sum((counts >> 10) & 1023) >= k).to(tl.int32)
            steps += (tl.sum(counts >> 20) >= k).to(tl.int32)
            bound += steps << pair
        counts = tl.zeros([CHUNK], tl.int32)
        for chunk in range(CHUNKS):
            keys = _load_keys(row, lanes + chunk * CHUNK, used)
            counts += (keys > bound).to(tl.int32)
            counts += (keys == bound).to(tl.int32) << 10
        over = tl.sum(counts & 1023)
        equals = tl.sum(counts >> 10)
    wanted = k - over
    smallest = float("inf")
    for chunk in range(CHUNKS):
        column = lanes + chunk * CHUNK
        keys = _load_keys(row, column, used)
        kept = keys >= bound
        if equals > wanted:
            equal = (keys == bound).to(tl.int32)
            kept = (keys > bound) | ((equal > 0) & (tl.cumsum(equal, 0) <= wanted))
            wanted -= tl.sum(equal)
            equals -= tl.sum(equal)
        tl.store(fired + column, tl.full([CHUNK], 1, tl.int8), mask=kept & (column < columns))
        smallest = tl.minimum(smallest, _write(row, column, columns, kept))
    tl.store(least + tl.program_id(0), smallest)


def keep_top_of_rows_(
    values_BF: Tensor, k: int, limits: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Keep the k largest values of each row and set the others, and those below 0, to 0, in place.
    `limits` (int32 [2]), if given, has k and how many columns take part; the others become 0.
    Returns whether each column had a kept value, also one that became 0 (bool [F]), and the
    smallest value above 0 of each row (float32 [B]; infinite if there is none)."""
    rows, columns = values_BF.shape
    fired_F = torch.zeros(columns, dtype=torch.int8, device=values_BF.device)
    least_B = torch.empty(rows, dtype=torch.float32, device=values_BF.device)
    chunk = min(triton.next_power_of_2(columns), CHUNK)
    _top_of_rows[(rows,)](
        values_BF,
        fired_F,
        least_B,
        least_B if limits is None else limits,
        min(k, columns),
        columns,
        LIMITED=limits is not None,
        CHUNK=chunk,
        CHUNKS=triton.cdiv(columns, chunk),
        num_warps=_warps(chunk),
    )
    return fired_F.bool(), least_B


@triton.jit
def _high_counts(values, counts, size, BLOCK: tl.constexpr, LOW: tl.constexpr):
    """Of the values above 0, how many have each upper part of the bits."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    keys = _keys(tl.load(values + at, mask=at < size, other=0.0))
    found = tl.histogram(tl.maximum(keys, 0) >> LOW, 256, mask=(keys > 0) & (at < size))
    tl.atomic_add(counts + tl.arange(0, 256), found)


@triton.jit
def _chosen(counts, wanted, BINS: tl.constexpr):
    """The bin that the `wanted`-th largest value lies in, and how many lie in higher bins; bin -1
    if there are not so many values."""
    bins = tl.arange(0, BINS)
    found = tl.load(counts + bins)
    total = tl.sum(found)
    from_here = total - tl.cumsum(found, 0) + found
    chosen = tl.max(tl.where(from_here >= wanted, bins, -1))
    higher = tl.sum(tl.where(bins > chosen, found, 0))
    return chosen, higher


@triton.jit
def _low_counts(values, high, counts, size, wanted, BLOCK: tl.constexpr, LOW: tl.constexpr):
    """Of the values in the chosen bin, how many have each lower part of the bits."""
    chosen, _ = _chosen(high, wanted, 256)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    keys = _keys(tl.load(values + at, mask=at < size, other=0.0))
    inside = (keys > 0) & (keys >> LOW == chosen) & (at < size)
    found = tl.histogram(tl.maximum(keys, 0) & ((1 << LOW) - 1), 1 << LOW, mask=inside)
    tl.atomic_add(counts + tl.arange(0, 1 << LOW), found)


@triton.jit
def _bound(high, low, wanted, LOW: tl.constexpr):
    """The key of the smallest kept value, and how many values with this key are kept. With fewer
    values above 0 than wanted, all are kept: key 0."""
    chosen, higher = _chosen(high, wanted, 256)
    within, more = _chosen(low, wanted - higher, 1 << LOW)
    key = tl.where(chosen < 0, 0, (chosen << LOW) + within)
    return key, tl.where(chosen < 0, 0, wanted - higher - more)


@triton.jit
def _equals_of_rows(
    values,
    high,
    low,
    equals,
    wanted,
    columns,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    LOW: tl.constexpr,
):
    key, _ = _bound(high, low, wanted, LOW)
    row = values + tl.program_id(0).to(tl.int64) * columns
    counts = tl.zeros([CHUNK], tl.int32)
    for chunk in range(CHUNKS):
        keys = _load_keys(row, tl.arange(0, CHUNK) + chunk * CHUNK, columns)
        counts += (keys == key).to(tl.int32)
    tl.store(equals + tl.program_id(0), tl.sum(counts))


@triton.jit
def _top_of_all(
    values,
    high,
    low,
    equals,
    before,
    fired,
    least,
    wanted,
    columns,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    LOW: tl.constexpr,
):
    key, equal_wanted = _bound(high, low, wanted, LOW)
    row = values + tl.program_id(0).to(tl.int64) * columns
    rest = equal_wanted - tl.load(before + tl.program_id(0)).to(tl.int32)
    here = tl.load(equals + tl.program_id(0))
    smallest = float("inf")
    for chunk in range(CHUNKS):
        column = tl.arange(0, CHUNK) + chunk * CHUNK
        keys = _load_keys(row, column, columns)
        kept = keys > key
        if rest >= here:
            kept = keys >= key
        elif rest > 0:
            equal = (keys == key).to(tl.int32)
            kept = (keys > key) | ((equal > 0) & (tl.cumsum(equal, 0) <= rest))
            rest -= tl.sum(equal)
            here -= tl.sum(equal)
        active = kept & (keys > 0) & (column < columns)
        tl.store(fired + column, tl.full([CHUNK], 1, tl.int8), mask=active)
        smallest = tl.minimum(smallest, _write(row, column, columns, kept))
    tl.store(least + tl.program_id(0), smallest)


def keep_top_of_all_(values_BF: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Keep the `count` largest values of the matrix and set the others, and those below 0, to 0, in
    place. Returns whether each column has a value above 0 (bool [F]), and the smallest value above
    0 of each row (float32 [B]; infinite if there is none)."""
    rows, columns = values_BF.shape
    device, size, block = values_BF.device, values_BF.numel(), 8192
    high = torch.zeros(256, dtype=torch.int32, device=device)
    low = torch.zeros(1 << LOW_BITS, dtype=torch.int32, device=device)
    equals_B = torch.empty(rows, dtype=torch.int32, device=device)
    fired_F = torch.zeros(columns, dtype=torch.int8, device=device)
    least_B = torch.empty(rows, dtype=torch.float32, device=device)
    chunk = min(triton.next_power_of_2(columns), CHUNK)
    chunks = {"CHUNK": chunk, "CHUNKS": triton.cdiv(columns, chunk), "LOW": LOW_BITS}
    blocks = (triton.cdiv(size, block),)
    _high_counts[blocks](values_BF, high, size, BLOCK=block, LOW=LOW_BITS, num_warps=8)
    _low_counts[blocks](values_BF, high, low, size, count, BLOCK=block, LOW=LOW_BITS, num_warps=8)
    warps = _warps(chunk)
    _equals_of_rows[(rows,)](
        values_BF, high, low, equals_B, count, columns, **chunks, num_warps=warps
    )
    before_B = equals_B.cumsum(0) - equals_B
    _top_of_all[(rows,)](
        values_BF,
        high,
        low,
        equals_B,
        before_B,
        fired_F,
        least_B,
        count,
        columns,
        **chunks,
        num_warps=warps,
    )
    return fired_F.bool(), least_B


def kept_top_of_rows(values_BF: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `keep_top_of_rows_` computes, by torch: the values, and its two results."""
    best_Bk = values_BF.sort(dim=1, descending=True, stable=True).indices[:, :k]
    kept_BF = torch.zeros_like(values_BF, dtype=torch.bool).scatter(1, best_Bk, True)
    result_BF = values_BF.masked_fill(~kept_BF, 0).relu()
    return result_BF, kept_BF.any(0), _least(result_BF)


def kept_top_of_all(values_BF: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `keep_top_of_all_` computes, by torch: the values, and its two results."""
    flat = values_BF.flatten()
    best = flat.sort(descending=True, stable=True).indices[:count]
    kept = torch.zeros_like(flat, dtype=torch.bool).index_fill(0, best, True)
    result_BF = flat.masked_fill(~kept, 0).relu().view_as(values_BF)
    return result_BF, (result_BF > 0).any(0), _least(result_BF)


def _least(values_BF: Tensor) -> Tensor:
    return values_BF.float().masked_fill(values_BF <= 0, torch.inf).amin(1)
