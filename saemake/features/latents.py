"""What is seen of an SAE's latents on a text: how often each fires, its top contexts, a sample.

A latent fires where it is not 0, as L0 counts. Its activations are multiplied by the norm of its
decoder direction, as SAEDashboard does, so that they are in the units of the LM's activations.

Shapes: N positions of a piece, C its contexts, M activations that are not 0, S chosen latents, F
latents, K kept contexts, D the model's width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saemake.evaluation.codecs import Codec
from saemake.features.ranking import largest
from saemake.features.text import Captured, Piece


@dataclass(frozen=True)
class Peaks:
    """The top contexts of each latent, the strongest first: the largest activation in a context,
    the context and the first position of that activation, [F, K] each. Of equal activations the
    earlier context comes first. Activations that are not above 0 are 0, and count for nothing."""

    values: Tensor
    contexts: Tensor
    positions: Tensor

    @classmethod
    def none(cls, width: int, device: torch.device) -> "Peaks":
        places = torch.empty(width, 0, dtype=torch.long, device=device)
        return cls(torch.empty(width, 0, device=device), places, places)

    def merged(self, later: "Peaks", count: int) -> "Peaks":
        """The top contexts of these and of later contexts."""
        pairs = zip(self._tensors, later._tensors, strict=True)
        values, contexts, positions = (torch.cat(pair, dim=1) for pair in pairs)
        values, order = largest(values, count)
        return Peaks(values, contexts.gather(1, order), positions.gather(1, order))

    def of(self, chosen_S: Tensor) -> "Peaks":
        """Those of chosen latents, on the CPU."""
        return Peaks(*(each[chosen_S].cpu() for each in self._tensors))

    @property
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.values, self.contexts, self.positions


@dataclass(frozen=True)
class Firing:
    """The M activations of a piece that are not 0: the used position of each, counted from the
    piece's first, its latent and its value."""

    places_M: Tensor
    latents_M: Tensor
    values_M: Tensor


def firing(codec: Codec, piece: Piece, device: torch.device) -> Firing:
    """Where the latents of a piece fire. A dense pass over all latents takes a CPU longer than
    encoding does, so there is one at most."""
    x_ND = piece.activations.to(device).float()
    listed = codec.listed(x_ND)
    if listed is None:
        f_NF = codec.encode(x_ND).flatten()
        flat_M = f_NF.nonzero()[:, 0]
        values_M = f_NF.take(flat_M)
    else:
        flat_P, values_P = listed
        fires_P = values_P != 0
        flat_M, values_M = flat_P[fires_P], values_P[fires_P]
    places_M = flat_M.div(codec.width, rounding_mode="floor")
    latents_M = flat_M - places_M * codec.width
    return Firing(places_M, latents_M, values_M * codec.decoder_rows.norm(dim=-1)[latents_M])


def peaks_of(fired: Firing, piece: Piece, width: int) -> Peaks:
    """The largest activation of each latent in each context of a piece, and its first position;
    [F, C]."""
    device, contexts = fired.values_M.device, piece.last - piece.first
    lengths_C = torch.tensor(piece.starts).diff()
    context_N = torch.arange(contexts).repeat_interleave(lengths_C).to(device)
    cells_M = context_N[fired.places_M] * width + fired.latents_M
    # Maxima and minima do not depend on the order in which a GPU takes them.
    values = torch.zeros(contexts * width, device=device)
    values.scatter_reduce_(0, cells_M, fired.values_M, "amax")
    first_M = fired.values_M == values[cells_M]
    positions_M = piece.positions.to(device)[fired.places_M[first_M]]
    positions = torch.full((contexts * width,), torch.iinfo(torch.long).max, device=device)
    positions.scatter_reduce_(0, cells_M[first_M], positions_M, "amin")
    numbers_C = torch.arange(piece.first, piece.last, device=device)
    return Peaks(
        values.view(contexts, width).T,
        numbers_C.expand(width, contexts),
        positions.view(contexts, width).T,
    )


@dataclass(frozen=True)
class Seen:
    """What a text shows of all latents: on how many positions each fires [F], its top contexts."""

    fired_F: Tensor
    peaks: Peaks


@torch.no_grad()
def seen(codec: Codec, text: Captured, device: torch.device, top_contexts: int) -> Seen:
    """Encode a text once, in pieces. Memory does not grow with the text."""
    fired_F = torch.zeros(codec.width, dtype=torch.long, device=device)
    peaks = Peaks.none(codec.width, device)
    for piece in text.pieces(codec.width):
        fired = firing(codec, piece, device)
        fired_F += fired.latents_M.bincount(minlength=codec.width)
        peaks = peaks.merged(peaks_of(fired, piece, codec.width), top_contexts)
    return Seen(fired_F.cpu(), peaks)


@torch.no_grad()
def activations_of(codec: Codec, text: Captured, device: torch.device, chosen_S: Tensor) -> Tensor:
    """The activations of chosen latents at every used position, [S, N], on the CPU. The text is
    encoded again in the same pieces, so the activations are those that `seen` saw."""
    values_SN = torch.zeros(len(chosen_S), len(text.x_ND))
    row_F = torch.full((codec.width,), -1, device=device)
    row_F[chosen_S.to(device)] = torch.arange(len(chosen_S), device=device)
    for piece in text.pieces(codec.width):
        fired = firing(codec, piece, device)
        rows_M = row_F[fired.latents_M]
        shown_M = rows_M >= 0
        places = fired.places_M[shown_M].cpu() + piece.starts[0]
        values_SN[rows_M[shown_M].cpu(), places] = fired.values_M[shown_M].cpu()
    return values_SN


def sample(fired_F: Tensor, count: int, asked: Sequence[int]) -> list[int]:
    """The latents that a page shows: all that are asked for, and `count` of those that fired. Those
    are evenly spaced among the latents in the order of their densities, the rarest and the densest
    included; of equal densities the lower latent comes first."""
    alive = fired_F.nonzero()[:, 0]
    order = alive[fired_F[alive].sort(stable=True).indices]
    if len(order) > count:
        places = torch.linspace(0, len(order) - 1, count, dtype=torch.float64).round().long()
        order = order[places]
    return sorted({*order.tolist(), *asked})


def histogram(values: Tensor, bins: int) -> tuple[list[int], float]:
    """How many of the activations above 0 are in each of so many bins of equal width between 0 and
    the largest; and the largest, 0 if there are none. A value on an edge is in the bin above it."""
    values = values[values > 0].double()
    if len(values) == 0:
        return [0] * bins, 0.0
    most = values.max()
    places = (values / most * bins).long().clamp(max=bins - 1)
    return places.bincount(minlength=bins).tolist(), most.item()
