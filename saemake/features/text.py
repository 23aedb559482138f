"""The text of a page with the LM's activations: what all SAEs of a job look at.

Shapes: B contexts of a batch, L positions, T tokens of the text, N positions that are used, C
contexts, D the model's width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from saemake.activations.dropping import Dropping
from saemake.base import progress
from saemake.llm.model import LanguageModel, checked
from saemake.recipes.features import positions_at_once
from saemake.text.shards import Contexts, Tokens


@dataclass(frozen=True)
class Captured:
    """A text on the CPU: its tokens `ids_T`, which of them are used (`kept_T`), the activations
    there `x_ND` in the LM's dtype, and where each context starts, `starts_C` with T at the end."""

    ids_T: Tensor
    kept_T: Tensor
    x_ND: Tensor
    starts_C: Tensor

    @property
    def contexts(self) -> int:
        return len(self.starts_C) - 1

    @property
    def rows(self) -> Tensor:
        """The place of each used token in `x_ND`, [T]; of others that of the used one before."""
        return self.kept_T.cumsum(0) - 1

    def pieces(self, width: int) -> Iterator["Piece"]:
        """The text in pieces of whole contexts that an SAE of that width encodes at once."""
        most = positions_at_once(width)
        used_C = self._used_before()
        first = 0
        while first < self.contexts:
            last = first + 1
            while (
                last < self.contexts
                and last - first < most
                and used_C[last + 1] - used_C[first] <= most
            ):
                last += 1
            yield Piece(self, first, last, used_C[first : last + 1])
            first = last

    def _used_before(self) -> list[int]:
        """The number of used positions before each context, and of all."""
        used_T = torch.cat([torch.zeros(1, dtype=torch.long), self.kept_T.cumsum(0)])
        return used_T[self.starts_C].tolist()


@dataclass(frozen=True)
class Piece:
    """Whole contexts of a text: the first of them, the one after the last, and the place in `x_ND`
    at which each starts and the last ends."""

    text: Captured
    first: int
    last: int
    starts: list[int]

    @property
    def activations(self) -> Tensor:
        """The activations of its used positions, [N, D]."""
        return self.text.x_ND[self.starts[0] : self.starts[-1]]

    @property
    def positions(self) -> Tensor:
        """The position of each used token in its context, [N]."""
        begin, end = (int(self.text.starts_C[at]) for at in (self.first, self.last))
        lengths = self.text.starts_C[self.first : self.last + 1].diff()
        own_starts = self.text.starts_C[self.first : self.last].repeat_interleave(lengths)
        return (torch.arange(begin, end) - own_starts)[self.text.kept_T[begin:end]]


def captured(
    lm: LanguageModel,
    tokens: Tokens,
    dropping: Dropping,
    batch_contexts: int,
    most_tokens: int,
    label: str,
) -> Captured:
    """Run the LM up to its layer over the first contexts of a text. Raises SaemakeError if
    activations are not finite."""
    ids, kept, activations, lengths = [], [], [], []
    with progress.bar(min(tokens.count, most_tokens), label, "tok") as bar:
        for contexts in beginning(tokens, batch_contexts, most_tokens):
            hidden_BLD = lm.capture(contexts)
            mask_BL = contexts.mask.bool()
            kept_BL = dropping.kept(contexts, hidden_BLD)
            activations.append(checked(hidden_BLD[kept_BL.to(lm.device)], label, lm).cpu())
            ids.append(contexts.ids[mask_BL])
            kept.append(kept_BL.cpu()[mask_BL])
            lengths.append(mask_BL.sum(dim=1))
            bar.update(contexts.tokens)
    ends = torch.cat(lengths).cumsum(0)
    starts_C = torch.cat([torch.zeros(1, dtype=torch.long), ends])
    return Captured(torch.cat(ids), torch.cat(kept), torch.cat(activations), starts_C)


def beginning(tokens: Tokens, batch_contexts: int, most_tokens: int) -> Iterator[Contexts]:
    """Batches of the contexts that start within the first `most_tokens` tokens."""
    left = most_tokens
    for contexts in tokens.contexts(batch_contexts):
        lengths_B = contexts.mask.sum(dim=1)
        starts_B = lengths_B.cumsum(0) - lengths_B
        fit = int((starts_B < left).sum())
        yield Contexts(contexts.ids[:fit], contexts.mask[:fit])
        left -= contexts.tokens
        if left <= 0:
            return
