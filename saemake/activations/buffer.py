"""The shuffle buffer: activations of many contexts, drawn at random without replacement.

Like dictionary_learning's ActivationBuffer, it is filled from the LM when less than half of it is
unread. The draws have the same distribution but another form: each filling makes one permutation of
the unread activations. Every token is used once: the buffer keeps the surplus of the last LM batch,
and drains at the end of the text.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from saemake.activations.dropping import Dropping
from saemake.base.errors import SaemakeError
from saemake.text.shards import Contexts

END = object()


class ActivationBuffer:
    """Batches of activations [batch_tokens, D] of a text, without padding and without the positions
    that `dropping` leaves out. `captured` gives the text's contexts with their activations
    [B, L, D], for a transcoder also with those of the site that it writes, its targets. A position
    that is left out at either site is left out at both.

    The draws come from a CPU generator seeded with `seed`, so they are the same on every device
    and do not depend on the SAEs that train on them. The buffer holds activations in `dtype`.
    """

    def __init__(
        self,
        captured: Iterator[tuple[Contexts, *tuple[Tensor, ...]]],
        *,
        d_model: int,
        capacity_tokens: int,
        batch_tokens: int,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
        dropping: Dropping | None = None,
    ) -> None:
        self.dropping = dropping or Dropping()
        self.captured = captured
        self.d_model = d_model
        self.capacity_tokens = capacity_tokens
        self.batch_tokens = batch_tokens
        self.generator = torch.Generator().manual_seed(seed)
        self.device = device
        self.activations_ND = torch.empty(0, d_model, dtype=dtype, device=device)
        self.targets_ND: Tensor | None = None
        self.order_N = torch.empty(0, dtype=torch.long, device=device)
        self.cursor = 0
        self.exhausted = False
        self.batches_read = 0
        # `counted` tokens were not left out by their ids; `kept` of them not by their norms either.
        self.counted = self.kept = 0

    def state(self) -> dict[str, Any]:
        """All that the next batches depend on, except for the text. The first `batches_read`
        batches of contexts have been read."""
        unread_N = self.order_N[self.cursor :]
        targets = {} if self.targets_ND is None else {"targets": self.targets_ND[unread_N]}
        return {
            "unread": self.activations_ND[unread_N],
            **targets,
            "generator": self.generator.get_state(),
            "batches_read": self.batches_read,
            "exhausted": self.exhausted,
            "counted": self.counted,
            "kept": self.kept,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a result of `state`. `captured` must start after its `batches_read`."""
        self.activations_ND = state["unread"].to(self.device)
        self.targets_ND = state["targets"].to(self.device) if "targets" in state else None
        self.order_N = torch.arange(len(self.activations_ND), device=self.device)
        self.cursor = 0
        self.generator.set_state(state["generator"])
        self.batches_read = state["batches_read"]
        self.exhausted = state["exhausted"]
        self.counted, self.kept = state.get("counted", 0), state.get("kept", 0)

    @property
    def dropped_by_norm(self) -> float:
        """The fraction of the counted tokens that are left out by their norms."""
        return 1 - self.kept / self.counted if self.counted else 0.0

    @property
    def unread(self) -> int:
        return len(self.order_N) - self.cursor

    @property
    def is_due(self) -> bool:
        """Whether the next batch fills the buffer first."""
        few = self.unread < max(self.capacity_tokens // 2, self.batch_tokens)
        return few and not self.exhausted

    def batch(self) -> Tensor:
        """The next batch, [batch_tokens, D]. Raises SaemakeError if the text ends before it."""
        return self.pair()[0]

    def pair(self) -> tuple[Tensor, Tensor]:
        """The next batch and its targets, [batch_tokens, D] each; where there are no targets, the
        batch itself twice. Raises SaemakeError if the text ends before it."""
        fill([self])
        if self.unread < self.batch_tokens:
            raise SaemakeError(
                f"the tokenised text has ended with {self.unread} tokens left, fewer than a batch"
                f" of {self.batch_tokens}; {self._way_out()}"
            )
        chosen_B = self.order_N[self.cursor : self.cursor + self.batch_tokens]
        self.cursor += self.batch_tokens
        batch_BD = self.activations_ND[chosen_B]
        return batch_BD, batch_BD if self.targets_ND is None else self.targets_ND[chosen_B]

    def _way_out(self) -> str:
        if self.kept == self.counted:
            return "delete its manifest.json and run the same command again"
        return self._dropped_too_much()

    def _dropped_too_much(self) -> str:
        most, dropped = self.dropping.norm_over_median, self.dropped_by_norm
        reserve = math.ceil(110 * dropped / (1 - dropped)) / 100
        return (
            f"training.drop.norm_over_median {most:g} has left out {dropped:.1%} of the positions,"
            f" more than was tokenised for it: set training.drop.reserve to {min(reserve, 1):g}, or"
            " norm_over_median higher"
        )

    def warned(self, reserve: float) -> list[str]:
        """A warning that the text will end before the training does, judging by the positions read
        so far. `reserve` is how much more text was tokenised, as a fraction."""
        if self.dropped_by_norm <= reserve / (1 + reserve):
            return []
        return [f"the text may end before the training does: so far {self._dropped_too_much()}"]

    def _check_widths(self, sites: Sequence[Tensor]) -> None:
        widths = [site.shape[-1] for site in sites]
        if any(width != self.d_model for width in widths):
            raise SaemakeError(
                f"the activations are {' and '.join(map(str, widths))} wide, and the model"
                f" {self.d_model}: SAEs and transcoders read and write sites of the model's width"
            )

    def filling(self) -> Iterator[None]:
        """Fill the buffer, in as many steps as it reads batches of contexts."""
        unread_N = self.order_N[self.cursor :]
        parts = [self.activations_ND[unread_N]]
        target_parts = [] if self.targets_ND is None else [self.targets_ND[unread_N]]
        held = len(parts[0])
        while held < max(self.capacity_tokens, self.batch_tokens):
            read = next(self.captured, None)
            if read is None:
                self.exhausted = True
                break
            self.batches_read += 1
            contexts, *sites = read
            self._check_widths(sites)
            # Without a limit on norms the mask is on the CPU. Selecting by index then spares the
            # device a synchronisation.
            kept_BL = self.dropping.kept(contexts, *sites)
            positions_N = kept_BL.flatten().nonzero().squeeze(1).to(self.device)
            for hidden_BLD, kept in zip(sites, (parts, target_parts), strict=False):
                kept_ND = hidden_BLD.flatten(0, 1)[positions_N]
                kept.append(kept_ND.to(self.activations_ND.dtype))
            held += len(positions_N)
            self.kept += len(positions_N)
            self.counted += int(self.dropping.counted(contexts).sum())
            yield
        self.activations_ND = torch.cat(parts)
        self.targets_ND = torch.cat(target_parts) if target_parts else None
        self.order_N = torch.randperm(held, generator=self.generator).to(self.device)
        self.cursor = 0


def fill(buffers: Sequence[ActivationBuffer]) -> None:
    """Fill those that are due, a batch of contexts each in turn: buffers that share their captures
    (see SharedCaptures) then keep no more than one batch waiting for each other."""
    working = [buffer.filling() for buffer in buffers if buffer.is_due]
    while working:
        working = [each for each in working if next(each, END) is not END]


def norm_factor(batches: Iterator[Tensor], count: int) -> float:
    """The scalar by which training divides activations: the square root of the mean squared norm
    over the next `count` batches [batch, D].

    The same as `get_norm_factor` of dictionary_learning, which takes the batches from the same
    stream.
    """
    (factor,) = norm_factors([batches], count)
    return factor


def norm_factors(streams: Sequence[Iterator[Tensor]], count: int) -> list[float]:
    """The `norm_factor` of each stream of batches, which are read in turn."""
    totals = [0.0] * len(streams)
    for _ in range(count):
        for place, batches in enumerate(streams):
            totals[place] += next(batches).float().pow(2).sum(dim=-1).mean().item()
    return [(total / count) ** 0.5 for total in totals]
