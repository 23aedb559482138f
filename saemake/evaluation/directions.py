"""How alike directions are: the largest cosine similarity of each with others. F and G directions
of D dimensions."""

import torch
from torch import Tensor, nn

from saemake.base.onednn import linear
from saemake.evaluation.pairs import ROWS_AT_ONCE


def unit(rows_FD: Tensor) -> Tensor:
    """Each row divided by its norm, in float32; [F, D]."""
    return nn.functional.normalize(rows_FD.float(), dim=-1)


def largest_cosines(these_FD: Tensor, those_GD: Tensor | None = None) -> Tensor:
    """Of each of these unit vectors, its largest product with one of those; without those, with
    one of the others of these (-inf where there is no other). [F]"""
    if those_GD is None:
        return _largest_among(these_FD)
    return torch.cat(
        [linear(part_RD, those_GD, None).amax(dim=-1) for part_RD in these_FD.split(ROWS_AT_ONCE)]
    )


def _largest_among(these_FD: Tensor) -> Tensor:
    """Each pair is multiplied once, and is of both."""
    largest_F = these_FD.new_full((len(these_FD),), -torch.inf)
    for start in range(0, len(these_FD), ROWS_AT_ONCE):
        rest_F = largest_F[start:]
        part_RD = these_FD[start : start + ROWS_AT_ONCE]
        cosines = linear(part_RD, these_FD[start:], None)
        cosines.diagonal().fill_(-torch.inf)
        rest_F.copy_(rest_F.maximum(cosines.amax(dim=0)))
        own_R = rest_F[: len(part_RD)]
        own_R.copy_(own_R.maximum(cosines.amax(dim=1)))
    return largest_F
