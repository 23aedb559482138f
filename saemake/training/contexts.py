"""Batches of whole contexts, for SAEs that are trained by what they change in the LM's output."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from saemake.activations.dropping import Dropping
from saemake.activations.norms import warned
from saemake.base.errors import SaemakeError
from saemake.llm.end_to_end import EndToEnd
from saemake.llm.model import LanguageModel
from saemake.recipes.kinds import SaeRecipe
from saemake.text.shards import Contexts
from saemake.training.members import Member


def contexts_of(recipe: SaeRecipe) -> int:
    """The contexts of a step: as many as have `training.batch_tokens` tokens where all are full."""
    return recipe.training.batch_tokens // recipe.tokens.context_tokens


@dataclass
class ContextStream:
    """The text's contexts in their order, a few a step: the activations [N, D] of the positions
    that are neither padding nor left out, the norm factor by which training divides them (`scale`),
    and the SAEs that train on them. Contexts that are not full make the batches of some steps
    smaller. `norms` are for provenance.json."""

    recipe: SaeRecipe
    lm: LanguageModel
    texts: Iterator[Contexts]
    dropping: Dropping
    members: list[Member] = field(default_factory=list)
    scale: float = math.nan
    norms: dict[str, Any] = field(default_factory=dict)
    # Batches of contexts that were read, and activations that were trained on.
    read: int = 0
    tokens: int = 0
    # `counted` tokens were not left out by their ids; `kept` of them not by their norms either.
    counted: int = 0
    kept: int = 0
    end_to_end: Callable[[Tensor], Tensor] | None = None

    def raw(self) -> Tensor:
        """The next batch as the LM has it. It is not trained on."""
        while True:
            contexts = self._next()
            hidden_BLD = self.lm.capture(contexts)
            kept_BL = self._kept(contexts, hidden_BLD)
            if kept_BL.any():
                return hidden_BLD[kept_BL].to(self.dtype)

    def batch(self) -> Tensor:
        """The next batch, divided by the norm factor. `end_to_end` is then the loss of its
        reconstructions. Raises SaemakeError if the text ends before it."""
        while True:
            contexts = self._next()
            intact = self.lm.intact(contexts)
            kept_BL = self._kept(contexts, intact.read_BLD)
            if kept_BL.any():
                break
        of_lm = EndToEnd(self.lm, self.recipe.training.loss, contexts, intact, kept_BL)
        self.end_to_end = lambda y_hat_ND: of_lm.loss(y_hat_ND.float() * self.scale)
        self.tokens += int(kept_BL.sum())
        return intact.read_BLD[kept_BL].to(self.dtype) / self.scale

    def _next(self) -> Contexts:
        contexts = next(self.texts, None)
        if contexts is None:
            raise SaemakeError(
                f"the tokenised text has ended after {self.read} batches of contexts; delete its"
                " manifest.json and run the same command again"
            )
        self.read += 1
        return contexts

    def _kept(self, contexts: Contexts, hidden_BLD: Tensor) -> Tensor:
        kept_BL = self.dropping.kept(contexts, hidden_BLD).to(hidden_BLD.device)
        self.kept += int(kept_BL.sum())
        self.counted += int(self.dropping.counted(contexts).sum())
        return kept_BL

    @property
    def dtype(self) -> torch.dtype:
        """That of autocast."""
        dtype: torch.dtype = getattr(torch, self.recipe.training.autocast)
        return dtype

    @property
    def devices(self) -> set[torch.device]:
        """Those that its SAEs train on."""
        return {member.device for member in self.members}

    @property
    def dropped_by_norm(self) -> float:
        """The fraction of the counted tokens that are left out by their norms."""
        return 1 - self.kept / self.counted if self.counted else 0.0

    def warned(self) -> list[str]:
        """What to know of its activations before training."""
        return warned(self.norms)

    def drop(self, member: Member) -> None:
        """Take out an SAE."""
        self.members.remove(member)

    def state(self) -> dict[str, Any]:
        """All that the next batches depend on, except for the text."""
        counts = ("scale", "norms", "read", "tokens", "counted", "kept")
        return {key: getattr(self, key) for key in counts}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a result of `state`. `texts` must start after its `read`."""
        for key, value in state.items():
            setattr(self, key, value)
