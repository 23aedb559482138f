"""Which positions of a batch are used: all but padding and those that the config's `drop` leaves
out.

In many LMs a few positions, most of them at the start of a context, have activations of ten times
the usual norm or more. They would dominate the norm factor and the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from saemake.activations.drop_settings import Drop
from saemake.text.shards import Contexts, Tokens


@dataclass(frozen=True)
class Dropping:
    """Leaves out tokens with these ids, and activations whose norm exceeds `norm_over_median` times
    the median norm of their batch."""

    ids: Sequence[int] = ()
    norm_over_median: float | None = None

    @classmethod
    def of(cls, drop: Drop, tokens: Tokens) -> Self:
        """From the config's section; the ids are in the manifest of the tokens."""
        return cls(tokens.manifest["dropped_ids"] if drop.kinds else (), drop.norm_over_median)

    def counted(self, contexts: Contexts) -> Tensor:
        """Positions that are neither padding nor left out by their ids: bool [B, L], on the CPU."""
        mask_BL = contexts.mask.bool()
        if not self.ids:
            return mask_BL
        return mask_BL & ~torch.isin(contexts.ids, torch.tensor(self.ids))

    def kept(self, contexts: Contexts, *sites: Tensor) -> Tensor:
        """Positions that are used, given the activations [B, L, D] of one site or of several: bool
        [B, L], on the CPU if only ids decide, else on the device of the activations. What is left
        out at one of the sites is left out at all.

        The median is over the float32 norms of the batch's counted positions. Of an even number it
        is the lower of the two in the middle. NaN is kept, for the caller to detect.
        """
        counted_BL = self.counted(contexts)
        if self.norm_over_median is None or not counted_BL.any():
            return counted_BL
        kept_BL = self._not_too_large(counted_BL, sites[0])
        for hidden_BLD in sites[1:]:
            kept_BL &= self._not_too_large(counted_BL, hidden_BLD)
        return kept_BL

    def _not_too_large(self, counted_BL: Tensor, hidden_BLD: Tensor) -> Tensor:
        """The counted positions whose activations are not too large; bool [B, L]."""
        assert self.norm_over_median is not None
        # A copy also where it is there already: it is changed.
        kept_BL = counted_BL.to(hidden_BLD.device, copy=True)
        norm_N = hidden_BLD[kept_BL].float().norm(dim=-1)
        median = norm_N.sort().values[(len(norm_N) - 1) // 2]
        kept_BL[kept_BL.clone()] = ~(norm_N > self.norm_over_median * median)
        return kept_BL
