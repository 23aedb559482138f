"""Matching pursuit: encodes greedily. The latent that fits best is taken and what it explains is
subtracted, then the latent that fits the rest best, k times (MP-SAE, Costa et al. 2025,
https://arxiv.org/abs/2506.03093; SAELens 6.54 has it as `matching_pursuit`).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from saemake.architectures import description, register
from saemake.architectures.description import Architecture
from saemake.base.sections import Count


class MatchingPursuitSettings(description.Settings):
    sweep: list[Count] = Field(min_length=1)


@register
class MatchingPursuit(Architecture):
    name = "matching_pursuit"
    version = 1
    sparsity = "k"
    trainer_class = "MatchingPursuitTrainer"
    dict_class = "MatchingPursuitDictionary"
    live_latents = 3.3
    Settings: ClassVar[type[description.Settings]] = MatchingPursuitSettings
    example: ClassVar[Mapping[str, Any]] = {"sweep": [4, 16]}

    @classmethod
    def products_of_step(cls, settings: Any, sparsity: float, latents: int) -> float:
        """One for each latent that is taken. What is subtracted, and all gradients, are of single
        rows."""
        return int(sparsity)

    @classmethod
    def products_of_encoding(cls, settings: Any, sparsity: float) -> float:
        return int(sparsity)
