"""The encoder of a training step. It encodes a batch without a graph, in parts; only the values at
chosen places get gradients.

Shapes: B activations in a batch, R activations in a part, D the model's width, F latents, N places
of a list, P places (see places.py).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from saemake import kernels
from saemake.architectures import places, products
from saemake.architectures.places import Listed, Masked, Places, Positive, starts_of

# Number of tokens from which the number of active latents is estimated.
SAMPLED_TOKENS = 32


class Encoding:
    """All latents of a batch before any is dropped: (x - shift) @ weight.T + bias, computed in
    `dtype`. `at`, `at_listed` and `at_masked` give values with gradients for weight, bias and
    shift."""

    def __init__(
        self,
        x_BD: Tensor,
        weight_FD: Tensor,
        bias_F: Tensor | None,
        shift_D: Tensor | None,
        dtype: torch.dtype,
        copy_FD: Tensor | None = None,
    ) -> None:
        """`copy_FD` is the weight in `dtype`, if there is a copy."""
        self.weight_FD, self.bias_F, self.shift_D = weight_FD, bias_F, shift_D
        self.shape = torch.Size((len(x_BD), len(weight_FD)))
        self.dtype, self.device = dtype, x_BD.device
        with torch.no_grad():
            x_BD = x_BD.float() if shift_D is None else x_BD.float() - shift_D
            self.x_BD = x_BD.to(dtype)
            self._linear = products.linear(
                weight_FD.to(dtype) if copy_FD is None else copy_FD,
                None if bias_F is None else bias_F.to(dtype),
            )

    @property
    def most_listed(self) -> int:
        """The largest number of places for which a list is faster than a mask."""
        return places.most_listed(self.shape.numel(), self.dtype, self.device)

    def lists(self, active: int) -> bool:
        """Whether a list of `active` places is faster than a mask."""
        return self.most_listed > 0 and active <= self.most_listed

    @torch.no_grad()
    def parts(self) -> Iterator[Tensor]:
        """The values [R, F] of the first tokens, then of the next tokens, and so on."""
        for x_RD in self.x_BD.split(products.part_tokens(self.shape[1], self.dtype)):
            yield self._linear(x_RD)

    @torch.no_grad()
    def of_some(self) -> Tensor:
        """The values [R, F] of a few tokens spread over the batch."""
        return self._linear(self.x_BD[:: max(len(self.x_BD) // SAMPLED_TOKENS, 1)])

    @torch.no_grad()
    def whole(self) -> Tensor:
        """The values of all tokens, [B, F]."""
        return self._linear(self.x_BD)

    @property
    def by_kernels(self) -> bool:
        """Whether kernels choose latents."""
        return kernels.used_on(self.device) and self.dtype == torch.bfloat16

    def at(self, places: Places, values_P: Tensor) -> Tensor:
        """The values at places [P] with gradients; `values_P` are the same values without."""
        return _EncodedAt.apply(self.weight_FD, self.bias_F, self.shift_D, self, places, values_P)

    def top_by_kernel(self, keep_: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Positive:
        """The places of the largest latents that are above 0; their values are `places.values_BF`.
        `keep_` sets the other values to 0 and returns which latents have a place and the smallest
        value of each token."""
        values_BF = self.whole()
        latents_F, smallest_B = keep_(values_BF)
        f_BF, *_ = self._positive_at(values_BF, None, None, None)
        return Positive(f_BF, latents_F, smallest_B=smallest_B)

    def positive_by_kernel(self, powers: Tensor | None = None) -> Positive:
        """The places of the latents above 0, with the sum of each latent's values, and for two
        exponents `powers` (float32 [2]) with the sums of values**exponent."""
        from saemake.kernels import masks  # it needs Triton

        values_BF = self.whole()
        latents_F, sums_F, power_sums = masks.keep_positive_(values_BF, powers)
        f_BF, sums_F, power_sums = self._positive_at(values_BF, sums_F, power_sums, powers)
        return Positive(f_BF, latents_F, sums_F=sums_F, power_sums=power_sums)

    def _positive_at(self, values_BF: Tensor, *sums: Tensor | None) -> Any:
        return _PositiveAt.apply(
            self.weight_FD, self.bias_F, self.shift_D, self.x_BD, values_BF, *sums
        )

    def at_listed(self, flat_N: Tensor, values_N: Tensor) -> tuple[Places, Tensor]:
        """The places with indices `flat_N` in the flattened matrix [B * F], and the values there
        with gradients. The places of a token must be adjacent."""
        tokens, width = self.shape
        tokens_N = flat_N.div(width, rounding_mode="floor")
        starts_B = starts_of(tokens_N.bincount(minlength=tokens))
        places = Listed(flat_N - tokens_N * width, starts_B, width, self.dtype)
        return places, self.at(places, values_N.float())

    def at_masked(self, all_BF: Tensor, mask_BF: Tensor) -> tuple[Places, Tensor]:
        """The places of a mask [B, F], and the values there with gradients."""
        places = Masked(mask_BF, self.dtype)
        return places, self.at(places, places.only(all_BF))


class _EncodedAt(torch.autograd.Function):
    """An encoding at places. The gradient of the shift is minus the bias's gradient times the
    encoder's weight, a product with one vector instead of a matrix [B, D]."""

    @staticmethod
    def forward(
        ctx: Any,
        weight_FD: Tensor,
        bias_F: Tensor | None,
        shift_D: Tensor | None,
        encoding: Encoding,
        places: Places,
        values_P: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight_FD, encoding.x_BD)
        ctx.places = places
        return values_P.view_as(values_P)

    @staticmethod
    def backward(
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None, None, None]:
        weight_FD, x_BD = ctx.saved_tensors
        gradient_P = ctx.places.only(gradients[0])
        weight_gradient_FD = ctx.places.outer(gradient_P, x_BD)
        _, bias, shift, *_ = ctx.needs_input_grad
        bias_gradient_F = ctx.places.by_latent(gradient_P) if bias or shift else None
        shift_gradient_D = -(bias_gradient_F @ weight_FD) if shift else None
        bias_gradient_F = bias_gradient_F if bias else None
        return weight_gradient_FD, bias_gradient_F, shift_gradient_D, None, None, None


class _PositiveAt(torch.autograd.Function):
    """Values above 0 of an encoding, the sum of each latent's values, the sums of their powers."""

    @staticmethod
    def forward(
        ctx: Any,
        weight_FD: Tensor,
        bias_F: Tensor | None,
        shift_D: Tensor | None,
        x_BD: Tensor,
        values_BF: Tensor,
        sums_F: Tensor | None,
        power_sums: Tensor | None,
        powers: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        ctx.save_for_backward(weight_FD, x_BD, values_BF, powers)
        ctx.set_materialize_grads(False)
        return values_BF.view_as(values_BF), _view(sums_F), _view(power_sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        from saemake.kernels import masks  # it needs Triton

        gradient_BF, sums_gradient_F, power_gradient = gradients
        weight_FD, x_BD, values_BF, powers = ctx.saved_tensors
        if sums_gradient_F is not None:
            sums_gradient_F = sums_gradient_F.contiguous()
        gradient_BF, sum_F = masks.where_positive(
            gradient_BF, values_BF, sums_gradient_F, power_gradient, powers
        )
        return *by_encoder(ctx, weight_FD, x_BD, gradient_BF, sum_F), *[None] * 5


def _view(sums: Tensor | None) -> Tensor | None:
    """A view, because a function may not return its inputs."""
    return None if sums is None else sums.view_as(sums)


def by_encoder(
    ctx: Any, weight_FD: Tensor, x_BD: Tensor, gradient_BF: Tensor, sum_F: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of weight, bias and shift, the first three inputs of a function, from that of
    an encoding and its sum over tokens."""
    _, bias, shift, *_ = ctx.needs_input_grad
    weight_gradient_FD = products.in_float32(gradient_BF.T, x_BD)
    shift_gradient_D = -(sum_F @ weight_FD) if shift else None
    return weight_gradient_FD, sum_F if bias else None, shift_gradient_D
