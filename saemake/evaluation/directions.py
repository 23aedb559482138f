"""Similarity of directions: the largest cosine similarity of each direction with others. Shapes: F
and G directions of D dimensions."""

import torch
from torch import Tensor, nn

from saemake.base.onednn import linear
from saemake.evaluation.pairs import ROWS_AT_ONCE


def unit(rows_FD: Tensor) -> Tensor:
    """Each row divided by its norm, in float32; [F, D]."""
    return nn.functional.normalize(rows_FD.float(), dim=-1)


def largest_cosines(these_FD: Tensor, those_GD: Tensor | None = None) -> Tensor:
    """The largest dot product of each of these unit vectors with one of those; [F]. Without those,
    with another one of these (-inf if there is no other)."""
    if those_GD is None:
        return _largest_among(these_FD)
    return torch.cat(
        [linear(part_RD, those_GD, None).amax(dim=-1) for part_RD in these_FD.split(ROWS_AT_ONCE)]
    )


def _largest_among(these_FD: Tensor) -> Tensor:
    """Computes each pair's product once and uses it for both vectors."""
    largest_F = these_FD.new_full((len(these_FD),), -torch.inf)
    for start in range(0, len(these_FD), ROWS_AT_ONCE):
        rest_F = largest_F[start:]
        part_RD = these_FD[start : start + ROWS_AT_ONCE]
        cosines = linear(part_RD, these_FD[start:], None)
        cosines.diagonal().fill_(-torch.inf)
        rest_F.copy_(rest_F.maximum(cosines.amax(dim=0)))
        part_R = rest_F[: len(part_RD)]
        part_R.copy_(part_R.maximum(cosines.amax(dim=1)))
    return largest_F
