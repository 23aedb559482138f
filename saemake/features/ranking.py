"""Rankings that are the same each time: equal values keep their order.

Shapes: S rows, F columns, N kept of each row; D the model's width.
"""

import torch
from torch import Tensor, nn

from saemake.recipes.features import RANKED_AT_ONCE


def largest(values_SF: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest values of each row and their columns, [S, N] each. Of equal values the one with
    the lower column comes first, which torch.topk does not promise."""
    values, columns = values_SF.sort(dim=-1, descending=True, stable=True)
    return values[:, :count], columns[:, :count]


def nearest(rows_FD: Tensor, chosen_S: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The latents whose decoder directions have the largest cosine with those of the chosen ones,
    themselves left out: cosines and latents, [S, N] each, on the CPU."""
    unit_FD = nn.functional.normalize(rows_FD.float(), dim=-1)
    parts = []
    for part_R in chosen_S.split(max(RANKED_AT_ONCE // len(unit_FD), 1)):
        cosines_RF = unit_FD[part_R] @ unit_FD.T
        cosines_RF[torch.arange(len(part_R), device=part_R.device), part_R] = -torch.inf
        parts.append(largest(cosines_RF, min(count, len(unit_FD) - 1)))
    return torch.cat([c for c, _ in parts]).cpu(), torch.cat([f for _, f in parts]).cpu()
