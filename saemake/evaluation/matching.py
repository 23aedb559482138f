"""One-to-one matching of the latents of two SAEs by their directions, as in Paulo and Belrose,
Sparse Autoencoders Trained on the Same Data Learn Different Features (arXiv 2501.16615). Shapes: F
latents, D dimensions.
"""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from saemake.architectures.dictionary import Dictionary
from saemake.base.onednn import linear
from saemake.evaluation.directions import unit
from saemake.evaluation.pairs import ROWS_AT_ONCE, Method

# Latents whose match has a larger cosine are shared, as in the paper.
SHARED = 0.7
# Of more directions the greedy matching is taken: the optimal one takes time as their cube, and
# their square in float64 (docs/seeds.md has the times).
MOST_OPTIMAL = 16_384


@dataclass(frozen=True)
class Matching:
    """A partner among other directions for each direction, and the cosine with it; [F] each. No two
    have the same partner."""

    partner_F: Tensor
    cosine_F: Tensor

    def shared(self) -> Tensor:
        """Whether the cosine is over SHARED; [F]."""
        return self.cosine_F > SHARED


@dataclass(frozen=True)
class Agreement:
    """How the latents of one SAE recur in another of the same size. The matchings of decoder and of
    encoder directions are found apart from each other, as in the paper's code: they may choose
    different partners."""

    decoder: Matching
    encoder: Matching
    method: Method

    def shared(self) -> Tensor:
        """Whether the cosine is over SHARED in both matchings; [F]."""
        return self.decoder.shared() & self.encoder.shared()

    def same_partner(self) -> Tensor:
        """Whether both matchings choose the same partner; [F]."""
        return self.decoder.partner_F == self.encoder.partner_F


def agreement(first: Dictionary, second: Dictionary) -> Agreement:
    """How the latents of `first` recur in `second`, which has as many."""
    method: Method = "optimal" if first.width <= MOST_OPTIMAL else "greedy"
    match = optimal if method == "optimal" else greedy
    return Agreement(
        match(unit(first.decoder_rows), unit(second.decoder_rows)),
        match(unit(first.encoder_weight), unit(second.encoder_weight)),
        method,
    )


def optimal(these_FD: Tensor, those_FD: Tensor) -> Matching:
    """The matching of unit vectors with the largest sum of cosines (scipy's
    linear_sum_assignment)."""
    cosines_FF = linear(these_FD, those_FD, None).cpu()
    _, partners = linear_sum_assignment(cosines_FF.numpy(), maximize=True)
    partner_F = torch.from_numpy(partners)
    return Matching(partner_F, cosines_FF.gather(1, partner_F[:, None])[:, 0])


def greedy(these_FD: Tensor, those_FD: Tensor) -> Matching:
    """The matching that takes the pair of unit vectors with the largest cosine again and again. Its
    sum of cosines is at most that of the optimal matching.

    A pair in which each is the other's nearest among those that are left is taken by it sooner or
    later, so that all such pairs are taken at once. No more than a block of cosines is in memory.
    """
    count, device = len(these_FD), these_FD.device
    partner_F = torch.full((count,), -1, device=device)
    cosine_F = torch.zeros(count, device=device)
    these, those = torch.arange(count, device=device), torch.arange(count, device=device)
    while len(these):
        largest, nearest, back = _nearest(these_FD[these], those_FD[those])
        mutual = back[nearest] == torch.arange(len(these), device=device)
        partner_F[these[mutual]] = those[nearest[mutual]]
        cosine_F[these[mutual]] = largest[mutual]
        taken = torch.zeros(len(those), dtype=torch.bool, device=device)
        taken[nearest[mutual]] = True
        these, those = these[~mutual], those[~taken]
    return Matching(partner_F.cpu(), cosine_F.cpu())


def _nearest(these_RD: Tensor, those_SD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each of these the largest cosine with one of those, and its place, [R] each; and for each
    of those the place of the nearest of these, [S]. Of equal cosines the first counts, so that one
    pair at least is mutual."""
    largest, places = [], []
    best_S = those_SD.new_full((len(those_SD),), -torch.inf)
    back_S = torch.zeros(len(those_SD), dtype=torch.long, device=those_SD.device)
    for start in range(0, len(these_RD), ROWS_AT_ONCE):
        cosines = linear(these_RD[start : start + ROWS_AT_ONCE], those_SD, None)
        in_rows, in_columns = cosines.max(dim=1), cosines.max(dim=0)
        largest.append(in_rows.values)
        places.append(in_rows.indices)
        larger_S = in_columns.values > best_S
        best_S = torch.where(larger_S, in_columns.values, best_S)
        back_S = torch.where(larger_S, in_columns.indices + start, back_S)
    return torch.cat(largest), torch.cat(places), back_S
