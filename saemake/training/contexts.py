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

# What the next batches depend on, except for the text.
STATE = (
    *("scale", "target_scale", "norms", "target_norms"),
    *("read", "tokens", "counted", "kept"),
)


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
    target_scale: float = math.nan
    norms: dict[str, Any] = field(default_factory=dict)
    target_norms: dict[str, Any] = field(default_factory=dict)
    # Batches of contexts that were read, and activations that were trained on.
    read: int = 0
    tokens: int = 0
    # `counted` tokens were not left out by their ids; `kept` of them not by their norms either.
    counted: int = 0
    kept: int = 0
    end_to_end: Callable[[Tensor], Tensor] | None = None

    def raw_pair(self) -> tuple[Tensor, Tensor]:
        """The next batch and its targets as the LM has them: for SAEs one tensor. They are not
        trained on."""
        at = self.recipe.hookpoint
        while True:
            contexts = self._next()
            captured = self.lm.captures(contexts, {at.source, at.target})
            kept_BL = self._kept(contexts, *captured.values())
            if kept_BL.any():
                return self._pair(captured[at.source], captured[at.target], kept_BL)

    def pair(self) -> tuple[Tensor, Tensor]:
        """The next batch and its targets, divided by their norm factors: for SAEs one tensor.
        `end_to_end` is then the loss of its reconstructions. Raises SaemakeError if the text ends
        before it."""
        while True:
            contexts = self._next()
            intact = self.lm.run(contexts)
            kept_BL = self._kept(contexts, *intact.sites)
            if kept_BL.any():
                break
        of_lm = EndToEnd(self.lm, self.recipe.training.loss, contexts, intact, kept_BL)
        self.end_to_end = lambda y_hat_ND: of_lm.loss(y_hat_ND.float() * self.target_scale)
        self.tokens += int(kept_BL.sum())
        x_ND, y_ND = self._pair(*intact.read_and_written, kept_BL)
        scaled_ND = x_ND / self.scale
        return scaled_ND, scaled_ND if y_ND is x_ND else y_ND / self.target_scale

    def _pair(
        self, read_BLD: Tensor, written_BLD: Tensor, kept_BL: Tensor
    ) -> tuple[Tensor, Tensor]:
        x_ND = read_BLD[kept_BL].to(self.dtype)
        return x_ND, x_ND if written_BLD is read_BLD else written_BLD[kept_BL].to(self.dtype)

    def _next(self) -> Contexts:
        contexts = next(self.texts, None)
        if contexts is None:
            raise SaemakeError(
                f"the tokenised text has ended after {self.read} batches of contexts; delete its"
                " manifest.json and run the same command again"
            )
        self.read += 1
        return contexts

    def _kept(self, contexts: Contexts, *sites: Tensor) -> Tensor:
        kept_BL = self.dropping.kept(contexts, *sites).to(sites[0].device)
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
        of_targets = (f"of what is written, {line}" for line in warned(self.target_norms))
        return [*warned(self.norms), *of_targets]

    def drop(self, member: Member) -> None:
        """Take out an SAE."""
        self.members.remove(member)

    def state(self) -> dict[str, Any]:
        """All that the next batches depend on, except for the text."""
        return {key: getattr(self, key) for key in STATE}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a result of `state`. `texts` must start after its `read`."""
        for key, value in state.items():
            setattr(self, key, value)
