"""What a training step holds the decoder's columns and the gradients to, besides its loss.

dictionary_learning has four ways, which differ in the order of three things: unit-norm columns,
clipping of all gradients to norm 1, and removal of the gradient's part along each column.
"""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from saemake.architectures.trainer import Dictionary


class Constraint(Protocol):
    """The three places in a step where it may act."""

    def before_forward(self, dictionary: "Dictionary") -> None: ...
    def before_optimizer(self, dictionary: "Dictionary") -> None: ...
    def after_optimizer(self, dictionary: "Dictionary") -> None: ...


class Free:
    """Columns of any norm; gradients clipped (StandardTrainerAprilUpdate)."""

    def before_forward(self, dictionary: "Dictionary") -> None:
        pass

    def before_optimizer(self, dictionary: "Dictionary") -> None:
        clip_gradients_(dictionary)

    def after_optimizer(self, dictionary: "Dictionary") -> None:
        pass


class UnitNorm:
    """Unit norm after the optimizer, gradients projected and not clipped (ConstrainedAdam: the
    trainers Standard, Gated and PAnneal, in January 2025 as in release 0.1.0)."""

    def before_forward(self, dictionary: "Dictionary") -> None:
        pass

    def before_optimizer(self, dictionary: "Dictionary") -> None:
        remove_parallel_gradient_(dictionary.decoder_weight, dictionary.d_model_dim, epsilon=0.0)

    def after_optimizer(self, dictionary: "Dictionary") -> None:
        normalise_(dictionary.decoder_weight, dictionary.d_model_dim, epsilon=0.0)


class January:
    """Unit norm before the forward pass; gradients clipped, then projected along the columns as
    they are (the TopK family and JumpReLU in January 2025)."""

    def before_forward(self, dictionary: "Dictionary") -> None:
        weight = dictionary.decoder_weight
        normalise_(weight, dictionary.d_model_dim, epsilon=torch.finfo(weight.dtype).eps)

    def before_optimizer(self, dictionary: "Dictionary") -> None:
        clip_gradients_(dictionary)
        remove_parallel_gradient_(dictionary.decoder_weight, dictionary.d_model_dim, epsilon=None)

    def after_optimizer(self, dictionary: "Dictionary") -> None:
        pass


class Release:
    """Gradients projected along the normalised columns, then clipped; unit norm after the optimizer
    (the TopK family and JumpReLU in release 0.1.0)."""

    def before_forward(self, dictionary: "Dictionary") -> None:
        pass

    def before_optimizer(self, dictionary: "Dictionary") -> None:
        remove_parallel_gradient_(dictionary.decoder_weight, dictionary.d_model_dim, epsilon=1e-6)
        clip_gradients_(dictionary)

    def after_optimizer(self, dictionary: "Dictionary") -> None:
        weight = dictionary.decoder_weight
        normalise_(weight, dictionary.d_model_dim, epsilon=torch.finfo(weight.dtype).eps)


PART = 1024  # columns
FREE = Free()
UNIT_NORM = UnitNorm()
OF_RECIPE: dict[str, Constraint] = {"saebench": January(), "dictionary_learning": Release()}


def clip_gradients_(dictionary: "Dictionary") -> None:
    """Scale all gradients down together where their norm exceeds 1, in place."""
    nn.utils.clip_grad_norm_(dictionary.parameters(), 1.0)


@torch.no_grad()
def normalise_(weight: Tensor, dim: int, epsilon: float) -> None:
    """Divide each column (which runs along `dim`) by its norm plus `epsilon`, in place."""
    weight /= weight.norm(dim=dim, keepdim=True) + epsilon


@torch.no_grad()
def remove_parallel_gradient_(weight: Tensor, dim: int, epsilon: float | None) -> None:
    """Take from each column's gradient its part along the column, in place: along the column
    divided by its norm plus `epsilon`, or along the column as it is (None)."""
    assert weight.grad is not None
    # A part at a time, which the cache keeps between product and sum.
    parts = zip(weight.grad.split(PART, 1 - dim), weight.split(PART, 1 - dim), strict=True)
    along = torch.cat([(g * w).sum(dim=dim, keepdim=True) for g, w in parts], dim=1 - dim)
    if epsilon is not None:
        along /= (weight.norm(dim=dim, keepdim=True) + epsilon).square()
    weight.grad.addcmul_(weight, along, value=-1)
