"""How alike directions are: the largest cosine similarity of each with others. F and G directions
of D dimensions."""

import torch
from torch import Tensor, nn

ROWS_AT_ONCE = 1024


def unit(rows_FD: Tensor) -> Tensor:
    """Each row divided by its norm, in float32; [F, D]."""
    return nn.functional.normalize(rows_FD.float(), dim=-1)


def largest_cosines(these_FD: Tensor, those_GD: Tensor | None = None) -> Tensor:
    """Of each of these unit vectors, its largest product with one of those; without those, with
    one of the others of these (-inf where there is no other). [F]"""
    largest = []
    for start in range(0, len(these_FD), ROWS_AT_ONCE):
        part_RD = these_FD[start : start + ROWS_AT_ONCE]
        if those_GD is None:
            cosines = part_RD @ these_FD.T
            cosines.diagonal(offset=start).fill_(-torch.inf)
        else:
            cosines = part_RD @ those_GD.T
        largest.append(cosines.amax(dim=-1))
    return torch.cat(largest)
