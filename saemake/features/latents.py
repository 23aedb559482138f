"""What is seen of an SAE's latents on a text: how often each fires, its top contexts, a sample.

A latent fires where it is not 0, as L0 counts. Its activations are multiplied by the norm of its
decoder direction, as SAEDashboard does, so that they are in the units of the LM's activations.

Shapes: N positions of a piece, C its contexts, T tokens of the text, S chosen latents, F latents, K
kept contexts, D the model's width.
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


def peaks_of(f_NF: Tensor, piece: Piece) -> Peaks:
    """The largest activation of each latent in each context of a piece, [F, C]. Contexts without
    used positions are left out."""
    positions_N, first = piece.positions.to(f_NF.device), piece.starts[0]
    values, contexts, positions = [], [], []
    for context, (start, end) in enumerate(zip(piece.starts, piece.starts[1:], strict=False)):
        if start == end:
            continue
        # Of equal activations torch gives the first.
        peak_F, place_F = f_NF[start - first : end - first].max(dim=0)
        values.append(peak_F.clamp(min=0))
        contexts.append(torch.full_like(place_F, piece.first + context))
        positions.append(positions_N[start - first : end - first][place_F])
    if not values:
        return Peaks.none(f_NF.shape[1], f_NF.device)
    return Peaks(*(torch.stack(each, dim=1) for each in (values, contexts, positions)))


@dataclass(frozen=True)
class Seen:
    """What a text shows of all latents: on how many positions each fires [F], its top contexts."""

    fired_F: Tensor
    peaks: Peaks


def activations(codec: Codec, piece: Piece, device: torch.device) -> Tensor:
    """The latents of a piece's used positions, each times the norm of its direction; [N, F]."""
    f_NF = codec.encode(piece.activations.to(device).float())
    return f_NF * codec.decoder_rows.norm(dim=-1)


@torch.no_grad()
def seen(codec: Codec, text: Captured, device: torch.device, top_contexts: int) -> Seen:
    """Encode a text once, in pieces. Memory does not grow with the text."""
    fired_F = torch.zeros(codec.width, dtype=torch.long, device=device)
    peaks = Peaks.none(codec.width, device)
    for piece in text.pieces(codec.width):
        f_NF = activations(codec, piece, device)
        fired_F += (f_NF != 0).sum(dim=0)
        peaks = peaks.merged(peaks_of(f_NF, piece), top_contexts)
    return Seen(fired_F.cpu(), peaks)


@torch.no_grad()
def activations_of(codec: Codec, text: Captured, device: torch.device, chosen_S: Tensor) -> Tensor:
    """The activations of chosen latents at every used position, [S, N], on the CPU. The text is
    encoded again in the same pieces, so the activations are those that `seen` saw."""
    parts = [
        activations(codec, piece, device)[:, chosen_S.to(device)].T.cpu()
        for piece in text.pieces(codec.width)
    ]
    return torch.cat(parts, dim=1).contiguous()


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
