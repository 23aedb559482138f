"""HierarchicalTopK: one SAE for every k up to its own. The loss is the mean over these k of the
reconstruction error with the k largest latents, so at inference any of them can be kept
(https://arxiv.org/abs/2505.24473; loss and kernels: corl-team/flexsae).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, field_validator

from saemake.architectures import description, register
from saemake.architectures.auxk_settings import EXAMPLE, AuxKSettings, auxk_products
from saemake.architectures.description import Architecture
from saemake.architectures.training_settings import Training
from saemake.base.sections import Count


class HierarchicalTopKSettings(AuxKSettings):
    """`inference_k`: the smaller k with which evaluations judge each SAE too."""

    OUTSIDE_RECIPE: ClassVar[set[str]] = {*AuxKSettings.OUTSIDE_RECIPE, "inference_k"}

    inference_k: list[Count] = Field(default=[])

    @field_validator("inference_k")
    @classmethod
    def _each_once(cls, values: list[int]) -> list[int]:
        return super()._once_each(values)


@register
class HierarchicalTopK(Architecture):
    name = "hierarchical_top_k"
    version = 1
    sparsity = "k"
    trainer_class = "HierarchicalTopKTrainer"
    dict_class = "HierarchicalTopKDictionary"
    weights_of = "abs_top_k"
    # Encoder: a product, the gradient of its weight. The decoder multiplies rows alone.
    step_products = 2
    live_latents = 4.3
    one_for_all = True
    Settings: ClassVar[type[description.Settings]] = HierarchicalTopKSettings
    example: ClassVar[Mapping[str, Any]] = {**EXAMPLE, "inference_k": [2, 8]}

    @classmethod
    def inferences_of(cls, trainer: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(f"k_{k}" for k in range(trainer["k"], 0, -1))

    @classmethod
    def judged_inferences(cls, settings: Any, sparsity: float) -> tuple[str, ...]:
        smaller = sorted((k for k in settings.inference_k if k < sparsity), reverse=True)
        return tuple(f"k_{int(k)}" for k in (sparsity, *smaller))

    @classmethod
    def dead_products(cls, settings: Any, training: Training, steps: int) -> float:
        return auxk_products(Architecture.step_products, settings, training, steps)
