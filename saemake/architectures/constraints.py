"""Constraints on the decoder's columns and on the gradients of a training step.

dictionary_learning has four of them. They differ in which of three operations they use, and in
which order: scaling columns to unit norm, clipping all gradients to norm 1, and removing from each
column's gradient the part along the column. docs/recipes.md compares them.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from saemake.architectures.dictionary import Dictionary


class Constraint(Protocol):
    """The three moments of a step at which a constraint changes weights or gradients, in place."""

    def before_forward(self, dictionary: Dictionary) -> None: ...
    def before_optimizer(self, dictionary: Dictionary) -> None: ...
    def after_optimizer(self, dictionary: Dictionary) -> None: ...


class Free:
    """Columns may have any norm; gradients are clipped (StandardTrainerAprilUpdate)."""

    def before_forward(self, dictionary: Dictionary) -> None:
        pass

    def before_optimizer(self, dictionary: Dictionary) -> None:
        clip_gradients_(dictionary)

    def after_optimizer(self, dictionary: Dictionary) -> None:
        pass


class UnitNorm:
    """Gradients are projected but not clipped; unit norm after the optimizer (ConstrainedAdam, used
    by the trainers Standard, Gated and PAnneal in January 2025 and in release 0.1.0)."""

    def before_forward(self, dictionary: Dictionary) -> None:
        pass

    def before_optimizer(self, dictionary: Dictionary) -> None:
        remove_parallel_gradient_(dictionary.decoder_weight, dictionary.d_model_dim, epsilon=0.0)

    def after_optimizer(self, dictionary: Dictionary) -> None:
        normalise_(dictionary.decoder_weight, dictionary.d_model_dim, epsilon=0.0)


class January:
    """Unit norm before the forward pass; gradients are clipped, then projected along the columns
    without dividing by their norm (the TopK family and JumpReLU in January 2025)."""

    def before_forward(self, dictionary: Dictionary) -> None:
        weight = dictionary.decoder_weight
        normalise_(weight, dictionary.d_model_dim, epsilon=torch.finfo(weight.dtype).eps)

    def before_optimizer(self, dictionary: Dictionary) -> None:
        clip_gradients_(dictionary)
        remove_parallel_gradient_(dictionary.decoder_weight, dictionary.d_model_dim, epsilon=None)

    def after_optimizer(self, dictionary: Dictionary) -> None:
        pass


class Release:
    """Gradients are projected along the normalised columns, then clipped; unit norm after the
    optimizer (the TopK family and JumpReLU in release 0.1.0)."""

    def before_forward(self, dictionary: Dictionary) -> None:
        pass

    def before_optimizer(self, dictionary: Dictionary) -> None:
        remove_parallel_gradient_(dictionary.decoder_weight, dictionary.d_model_dim, epsilon=1e-6)
        clip_gradients_(dictionary)

    def after_optimizer(self, dictionary: Dictionary) -> None:
        weight = dictionary.decoder_weight
        normalise_(weight, dictionary.d_model_dim, epsilon=torch.finfo(weight.dtype).eps)


PART = 1024  # columns that are projected together
FREE = Free()
UNIT_NORM = UnitNorm()
OF_RECIPE: dict[str, Constraint] = {"saebench": January(), "dictionary_learning": Release()}


def clip_gradients_(dictionary: Dictionary) -> None:
    """Scale all gradients down together if their joint norm exceeds 1, in place."""
    nn.utils.clip_grad_norm_(dictionary.parameters(), 1.0)


@torch.no_grad()
def normalise_(weight: Tensor, dim: int, epsilon: float) -> None:
    """Divide each column (a vector along `dim`) by its norm plus `epsilon`, in place."""
    weight /= weight.norm(dim=dim, keepdim=True) + epsilon


@torch.no_grad()
def remove_parallel_gradient_(weight: Tensor, dim: int, epsilon: float | None) -> None:
    """Subtract from each column's gradient its part along the column, in place. Columns are first
    divided by their norm plus `epsilon`; with None they are used undivided."""
    assert weight.grad is not None
    # A few columns at a time: the products are still in the cache when they are summed.
    parts = zip(weight.grad.split(PART, 1 - dim), weight.split(PART, 1 - dim), strict=True)
    along = torch.cat([(g * w).sum(dim=dim, keepdim=True) for g, w in parts], dim=1 - dim)
    if epsilon is not None:
        along /= (weight.norm(dim=dim, keepdim=True) + epsilon).square()
    weight.grad.addcmul_(weight, along, value=-1)
