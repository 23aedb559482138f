"""Constraints on the decoder's columns and on the gradients of a training step.

dictionary_learning has four of them. They differ in which of three operations they use, and in
which order: scaling columns to unit norm, clipping all gradients to norm 1, and removing from each
column's gradient the part along the column. docs/recipes.md compares them.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from saemake.architectures.dictionary import Dictionary, LayeredDictionary

FLOAT32_EPSILON = torch.finfo(torch.float32).eps
PART = 1024  # columns that are projected together


@dataclass(frozen=True)
class Constraint:
    """What changes weights and gradients in a step, in place.

    `clips`: gradients are clipped before or after the projection, or not at all. `projects`: the
    gradient's part along the column is removed; columns are first divided by their norm plus
    `along_epsilon`, or used undivided (None). `unit_norm`: columns are divided by their norm plus
    `norm_epsilon` before the forward pass, after the optimizer, or never.
    """

    clips: Literal["first", "last"] | None = None
    projects: bool = False
    along_epsilon: float | None = None
    unit_norm: Literal["before_forward", "after_optimizer"] | None = None
    norm_epsilon: float = 0.0

    def before_forward(self, dictionary: Dictionary) -> None:
        if self.unit_norm == "before_forward":
            self.normalise_(dictionary)

    def before_optimizer(self, dictionary: Dictionary) -> None:
        if self.clips == "first":
            clip_gradients_(dictionary)
        if self.projects:
            weight = dictionary.decoder_weight
            remove_parallel_gradient_(weight, dictionary.d_model_dim, self.along_epsilon)
        if self.clips == "last":
            clip_gradients_(dictionary)

    def after_optimizer(self, dictionary: Dictionary) -> None:
        if self.unit_norm == "after_optimizer":
            self.normalise_(dictionary)

    def normalise_(self, dictionary: Dictionary) -> None:
        """Give the decoder's columns unit norm."""
        normalise_(dictionary.decoder_weight, dictionary.d_model_dim, self.norm_epsilon)


# StandardTrainerAprilUpdate.
FREE = Constraint(clips="last")
# ConstrainedAdam, used by the trainers Standard, Gated and PAnneal in January 2025 and in release
# 0.1.0.
UNIT_NORM = Constraint(projects=True, along_epsilon=0.0, unit_norm="after_optimizer")
# The TopK family and JumpReLU, by recipe: January 2025 and release 0.1.0.
OF_RECIPE = {
    "saebench": Constraint(
        clips="first", projects=True, unit_norm="before_forward", norm_epsilon=FLOAT32_EPSILON
    ),
    "dictionary_learning": Constraint(
        clips="last",
        projects=True,
        along_epsilon=1e-6,
        unit_norm="after_optimizer",
        norm_epsilon=FLOAT32_EPSILON,
    ),
}


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


@torch.no_grad()
def draw_unit_columns(dictionary: LayeredDictionary, generator: torch.Generator) -> None:
    """Draw decoder columns uniformly and give them unit norm; the encoder is the decoder
    transposed, its bias 0."""
    decoder_DF = dictionary.decoder.weight
    decoder_DF.uniform_(-1, 1, generator=generator)
    normalise_(decoder_DF, 0, epsilon=torch.finfo(decoder_DF.dtype).eps)
    dictionary.encoder.weight.copy_(decoder_DF.T)
    dictionary.encoder.bias.zero_()
