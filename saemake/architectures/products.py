"""Matrix products of a training step, in parts where a whole one would take too much memory.

Shapes: B activations in a batch, R of them in a part, D the model's width, F latents.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from saemake.base import onednn

# Of a part of the batch: small enough that its memory is used again for the next, and so many
# tokens at least that its product is fast.
PART_BYTES, PART_TOKENS = 2**24, 256


def part_tokens(width: int, dtype: torch.dtype) -> int:
    """How many of a batch's tokens are encoded together."""
    return max(PART_BYTES // (width * dtype.itemsize), PART_TOKENS)


def in_parts(some: Callable[[int, int], Tensor], width: int, rows_BD: Tensor) -> Tensor:
    """Of all latents, float32 [F, D], what `some` gives of those from one to before another. In
    bfloat16 it is made for some at a time, so that no whole copy in bfloat16 exists."""
    if rows_BD.dtype == torch.float32:
        return some(0, width)
    found_FD = rows_BD.new_empty(width, rows_BD.shape[1], dtype=torch.float32)
    at_once = max(PART_BYTES // (rows_BD.shape[1] * rows_BD.itemsize), 1)
    for first in range(0, width, at_once):
        end = min(first + at_once, width)
        found_FD[first:end] = some(first, end)
    return found_FD


def linear(weight_FD: Tensor, bias_F: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x [R, D] to x @ weight.T + bias, in their dtype, without a gradient. In bfloat16 on a CPU
    with the bias as one more input, since torch would first copy it to every token."""
    if bias_F is not None and weight_FD.device.type == "cpu" and weight_FD.dtype == torch.bfloat16:
        both = torch.cat([weight_FD, bias_F[:, None]], dim=1)
        return lambda x_RD: functional.linear(functional.pad(x_RD, (0, 1), value=1.0), both)
    return lambda x_RD: onednn.linear(x_RD, weight_FD, bias_F)
