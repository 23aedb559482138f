"""Matrix products of a training step, computed in parts to save memory.

Shapes: B activations in a batch, R of them in a part, D the model's width, F latents.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from saemake.base import onednn

# Size of a part. At most so many bytes, so that the next part uses the same memory again; but at
# least so many tokens, so that the product is fast.
PART_BYTES, PART_TOKENS = 2**24, 256


def part_tokens(width: int, dtype: torch.dtype) -> int:
    """How many tokens of a batch are encoded together."""
    return max(PART_BYTES // (width * dtype.itemsize), PART_TOKENS)


def in_parts(compute: Callable[[int, int], Tensor], width: int, rows_BD: Tensor) -> Tensor:
    """A float32 matrix [F, D] whose rows [first, end) are `compute(first, end)`. In bfloat16 it is
    filled in parts, so that there is never a whole copy in bfloat16."""
    if rows_BD.dtype == torch.float32:
        return compute(0, width)
    result_FD = rows_BD.new_empty(width, rows_BD.shape[1], dtype=torch.float32)
    part_latents = max(PART_BYTES // (rows_BD.shape[1] * rows_BD.itemsize), 1)
    for first in range(0, width, part_latents):
        end = min(first + part_latents, width)
        result_FD[first:end] = compute(first, end)
    return result_FD


def in_float32(left: Tensor, right: Tensor) -> Tensor:
    """The product of two matrices of one dtype, summed and returned in float32."""
    if left.dtype == torch.float32:
        return left @ right
    if left.device.type == "cuda":
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


class _Skipped(torch.autograd.Function):
    """x @ weight.T in a dtype, with the weight's gradient summed in float32."""

    @staticmethod
    def forward(ctx: Any, weight_DD: Tensor, x_BD: Tensor, dtype: torch.dtype) -> Tensor:
        x_BD = x_BD.to(dtype)
        ctx.save_for_backward(x_BD)
        return onednn.linear(x_BD, weight_DD.to(dtype), None)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x_BD,) = ctx.saved_tensors
        return in_float32(gradients[0].to(x_BD.dtype).T, x_BD), None, None


def skipped(weight_DD: Tensor, x_BD: Tensor, dtype: torch.dtype) -> Tensor:
    """What a skip connection adds in a training step: x @ weight.T, [B, D] in `dtype`."""
    result: Tensor = _Skipped.apply(weight_DD, x_BD, dtype)
    return result


def linear(weight_FD: Tensor, bias_F: Tensor | None) -> Callable[[Tensor], Tensor]:
    """The function from x [R, D] to x @ weight.T + bias [R, F], in the dtype of the weight, without
    a graph. In bfloat16 on a CPU the bias is one more column of the weight: otherwise torch would
    first copy the bias to every token."""
    if bias_F is not None and weight_FD.device.type == "cpu" and weight_FD.dtype == torch.bfloat16:
        weight_and_bias = torch.cat([weight_FD, bias_F[:, None]], dim=1)
        return lambda x_RD: functional.linear(
            functional.pad(x_RD, (0, 1), value=1.0), weight_and_bias
        )
    return lambda x_RD: onednn.linear(x_RD, weight_FD, bias_F)
