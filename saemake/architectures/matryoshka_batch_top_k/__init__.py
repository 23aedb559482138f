"""Matryoshka BatchTopK: nested dictionaries. Each prefix of the latents must reconstruct the
activations by itself (https://arxiv.org/abs/2503.17547). Latents are chosen as in BatchTopK.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from saemake.architectures import description, register
from saemake.architectures.description import Architecture
from saemake.architectures.top_k_settings import EXAMPLE, TopKSettings, auxk_products
from saemake.architectures.training_settings import Training
from saemake.base.sections import Number

Share = Annotated[Number, Field(gt=0)]


class MatryoshkaSettings(TopKSettings):
    """`group_fractions` are shares of the width; the last group takes what rounding leaves.
    `group_weights` None means the recipe's own weights: the fractions in January 2025 (`saebench`),
    equal weights in release 0.1.0 (`dictionary_learning`)."""

    group_fractions: list[Share] = Field(min_length=1)
    group_weights: list[Share] | Literal["fractions", "uniform"] | None = None

    @field_validator("group_fractions")
    @classmethod
    def _sum_to_one(cls, fractions: list[float]) -> list[float]:
        total = sum(fractions)
        if not math.isclose(total, 1.0):
            terms = " + ".join(f"{fraction:g}" for fraction in fractions)
            raise ValueError(f"must sum to 1, not {terms} = {total:g}")
        return fractions

    @field_validator("group_weights")
    @classmethod
    def _one_per_group(cls, weights: Any, others: ValidationInfo) -> Any:
        groups = len(others.data.get("group_fractions", []))
        if isinstance(weights, list) and groups and len(weights) != groups:
            raise ValueError(
                f"{len(weights)} weights, but group_fractions has {groups}; give one a group"
            )
        return weights

    def latents_needed(self) -> dict[str, int]:
        return {
            **super().latents_needed(),
            "group_fractions": math.ceil(1 / min(self.group_fractions)),
        }

    def sizes(self, width: int) -> list[int]:
        """The number of latents in each group, rounded as in dictionary_learning."""
        sizes = [int(fraction * width) for fraction in self.group_fractions[:-1]]
        return [*sizes, width - sum(sizes)]

    def weights(self, recipe: str) -> list[float]:
        """The weight of each group's loss."""
        if isinstance(self.group_weights, list):
            return self.group_weights
        chosen = self.group_weights or ("fractions" if recipe == "saebench" else "uniform")
        groups = len(self.group_fractions)
        return self.group_fractions if chosen == "fractions" else [1 / groups] * groups


@register
class MatryoshkaBatchTopK(Architecture):
    name = "matryoshka_batch_top_k"
    version = 5
    sparsity = "k"
    trainer_class = "MatryoshkaBatchTopKTrainer"
    dict_class = "MatryoshkaBatchTopKSAE"
    transcodes = True
    trains_end_to_end = True
    live_latents = 4.0
    Settings: ClassVar[type[description.Settings]] = MatryoshkaSettings
    example: ClassVar[Mapping[str, Any]] = {**EXAMPLE, "group_fractions": [0.125, 0.25, 0.625]}
    inferences: ClassVar[tuple[str, ...]] = ("threshold", "top_k")

    @classmethod
    def target_l0(cls, sparsity: float) -> float | None:
        return sparsity

    @classmethod
    def errors_in_a_step(cls, settings: MatryoshkaSettings) -> int:
        return len(settings.group_fractions)

    @classmethod
    def dead_products(cls, settings: Any, training: Training, steps: int) -> float:
        return auxk_products(cls.step_products, settings, training, steps)
