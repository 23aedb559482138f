"""The encoder of a training step. It encodes a batch without a graph, in parts; only the values at
chosen places get gradients.

Shapes: B activations in a batch, R activations in a part, D the model's width, F latents, N places
of a list, P places (see places.py).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from saemake import kernels
from saemake.architectures import places, products
from saemake.architectures.places import Listed, Masked, Places, starts_of

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
        _, bias, shift, *_ = ctx.needs_input_grad
        bias_gradient_F: Tensor | None = None
        if bias or shift:
            gradient_P, bias_gradient_F = ctx.places.gradients(gradients[0])
        else:
            gradient_P = ctx.places.only(gradients[0])
        weight_gradient_FD = ctx.places.outer(gradient_P, x_BD)
        shift_gradient_D = -(bias_gradient_F @ weight_FD) if shift else None
        bias_gradient_F = bias_gradient_F if bias else None
        return weight_gradient_FD, bias_gradient_F, shift_gradient_D, None, None, None
