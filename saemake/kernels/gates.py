"""The activation functions of gated and jump_relu, forward and backward, each in one pass over the
memory with the sums over a column that their losses and biases need. All arithmetic is in float32;
matrices are bfloat16.

Shapes: B rows (tokens), F columns (latents).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from saemake.kernels.masks import COLUMNS, ROWS, WARPS, grid_of, sums_for
from saemake.kernels.tiles import above_zero, mark, store_sum, tile_of


@triton.jit
def _column(vector, column, columns):
    return tl.load(vector + column, mask=column < columns, other=0.0)[None, :]


@triton.jit
def _gate(
    encoded,
    gate_bias,
    scale,
    magnitude_bias,
    gate,
    latents,
    fired,
    sums,
    rows,
    columns,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    _, column, inside, at = tile_of(rows, columns, ROWS, COLUMNS)
    e = tl.load(encoded + at, mask=inside, other=0.0).to(tl.float32)
    opened = e + _column(gate_bias, column, columns)
    magnitude = e * _column(scale, column, columns) + _column(magnitude_bias, column, columns)
    opened = tl.where(inside & above_zero(opened), opened, 0.0)
    f = tl.where((opened != 0) & above_zero(magnitude), magnitude, 0.0)
    tl.store(gate + at, opened, mask=inside)
    tl.store(latents + at, f, mask=inside)
    mark(fired, f > 0, column, columns, COLUMNS)
    store_sum(sums, 0, opened, column, columns)


@triton.jit
def _gate_backward(
    encoded,
    gate_bias,
    scale,
    magnitude_bias,
    gate_gradient,
    latents_gradient,
    sum_gradient,
    result,
    sums,
    rows,
    columns,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    _, column, inside, at = tile_of(rows, columns, ROWS, COLUMNS)
    e = tl.load(encoded + at, mask=inside, other=0.0).to(tl.float32)
    scaled = _column(scale, column, columns)
    opened = e + _column(gate_bias, column, columns)
    magnitude = e * scaled + _column(magnitude_bias, column, columns)
    is_open = inside & above_zero(opened)
    g = tl.load(gate_gradient + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.where(is_open, g + _column(sum_gradient, column, columns), 0.0)
    h = tl.load(latents_gradient + at, mask=inside, other=0.0).to(tl.float32)
    h = tl.where(is_open & above_zero(magnitude), h, 0.0)
    both = g + h * scaled
    tl.store(result + at, both, mask=inside)
    store_sum(sums, 0, both, column, columns)
    store_sum(sums, 1, g, column, columns)
    store_sum(sums, 2, h, column, columns)
    store_sum(sums, 3, h * e * scaled, column, columns)


@triton.jit
def _jump(
    encoded,
    threshold,
    latents,
    sums,
    rows,
    columns,
    bandwidth,
    margin,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    _, column, inside, at = tile_of(rows, columns, ROWS, COLUMNS)
    e = tl.load(encoded + at, mask=inside, other=0.0).to(tl.float32)
    bound = _column(threshold, column, columns)
    place = inside & ((e > bound - margin) | (e != e))
    f = tl.where(place & ((e > bound) | (e != e)), e, 0.0)
    tl.store(latents + at, f, mask=inside)
    near = place & (tl.abs((f - bound) / bandwidth) < 0.5)
    store_sum(sums, 0, f, column, columns)
    store_sum(sums, 1, place.to(tl.float32), column, columns)
    over = (place & (f > bound)).to(tl.float32)
    store_sum(sums, 2, over, column, columns)
    store_sum(sums, 3, near.to(tl.float32), column, columns)


@triton.jit
def _jump_backward(
    encoded,
    threshold,
    gradient,
    result,
    sums,
    rows,
    columns,
    bandwidth,
    margin,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    _, column, inside, at = tile_of(rows, columns, ROWS, COLUMNS)
    e = tl.load(encoded + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    bound = _column(threshold, column, columns)
    place = inside & ((e > bound - margin) | (e != e))
    through = tl.where(place & ((e > bound) | (e != e)), g, 0.0)
    near = tl.where(place & (tl.abs((e - bound) / bandwidth) < 0.5), g, 0.0)
    tl.store(result + at, through, mask=inside)
    store_sum(sums, 0, through, column, columns)
    store_sum(sums, 1, near, column, columns)


TILE = {"ROWS": ROWS, "COLUMNS": COLUMNS, "num_warps": WARPS}


def gates(
    encoded_BF: Tensor, gate_bias_F: Tensor, scale_F: Tensor, magnitude_bias_F: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gate's activations max(e + gate_bias, 0) and the latents, max(e * scale +
    magnitude_bias, 0) where the gate is open (bfloat16 [B, F] each); whether each latent is above 0
    somewhere (bool [F]); the sum of the gate's activations over tokens (float32 [F])."""
    gate_BF, latents_BF = torch.empty_like(encoded_BF), torch.empty_like(encoded_BF)
    fired_F = torch.zeros(encoded_BF.shape[1], dtype=torch.int8, device=encoded_BF.device)
    sums = sums_for(encoded_BF, 1)
    _gate[grid_of(encoded_BF)](
        encoded_BF,
        gate_bias_F,
        scale_F,
        magnitude_bias_F,
        gate_BF,
        latents_BF,
        fired_F,
        sums,
        *encoded_BF.shape,
        **TILE,
    )
    return gate_BF, latents_BF, fired_F.bool(), sums[0].sum(0)


def gates_backward(
    encoded_BF: Tensor,
    gate_bias_F: Tensor,
    scale_F: Tensor,
    magnitude_bias_F: Tensor,
    *,
    gate_gradient_BF: Tensor,
    latents_gradient_BF: Tensor,
    sum_gradient_F: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradient of the encoding (bfloat16 [B, F]) and its sum over tokens; the gradients of gate
    bias, magnitude bias and the logarithm of the scale (float32 [F] each)."""
    result_BF, sums = torch.empty_like(encoded_BF), sums_for(encoded_BF, 4)
    _gate_backward[grid_of(encoded_BF)](
        encoded_BF,
        gate_bias_F,
        scale_F,
        magnitude_bias_F,
        gate_gradient_BF.contiguous(),
        latents_gradient_BF.contiguous(),
        sum_gradient_F.contiguous(),
        result_BF,
        sums,
        *encoded_BF.shape,
        **TILE,
    )
    return result_BF, *sums.sum(1)


def jumps(
    encoded_BF: Tensor, threshold_F: Tensor, bandwidth: float, margin: float
) -> tuple[Tensor, Tensor]:
    """The values over their latent's threshold, else 0 (bfloat16 [B, F]). Of the values over
    threshold - margin, for each latent (float32 [4, F]): their sum after the jump, how many there
    are, how many are over the threshold, how many are within half a bandwidth of it after the
    jump."""
    latents_BF, sums = torch.empty_like(encoded_BF), sums_for(encoded_BF, 4)
    _jump[grid_of(encoded_BF)](
        encoded_BF,
        threshold_F,
        latents_BF,
        sums,
        *encoded_BF.shape,
        bandwidth,
        margin,
        **TILE,
    )
    return latents_BF, sums.sum(1)


def jumps_backward(
    encoded_BF: Tensor, threshold_F: Tensor, gradient_BF: Tensor, bandwidth: float, margin: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the encoding (bfloat16 [B, F]), its sum over tokens, and the sum of the
    gradients whose values are within half a bandwidth of the threshold (float32 [F] each)."""
    result_BF, sums = torch.empty_like(encoded_BF), sums_for(encoded_BF, 2)
    _jump_backward[grid_of(encoded_BF)](
        encoded_BF,
        threshold_F,
        gradient_BF.contiguous(),
        result_BF,
        sums,
        *encoded_BF.shape,
        bandwidth,
        margin,
        **TILE,
    )
    return result_BF, *sums.sum(1)
