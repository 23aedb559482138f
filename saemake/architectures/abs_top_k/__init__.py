"""AbsTopK: keeps the k activations of each token that are largest in size, with their signs. So one
latent has two directions (https://arxiv.org/abs/2510.00404; SAELens 6.54 has it as `abstopk`).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from saemake.architectures import description, register
from saemake.architectures.auxk_settings import EXAMPLE, AuxKSettings, auxk_products
from saemake.architectures.description import Architecture
from saemake.architectures.training_settings import Training


@register
class AbsTopK(Architecture):
    name = "abs_top_k"
    version = 1
    sparsity = "k"
    trainer_class = "AbsTopKTrainer"
    dict_class = "AbsTopKDictionary"
    trains_end_to_end = True
    transcodes = True
    live_latents = 4.3
    Settings: ClassVar[type[description.Settings]] = AuxKSettings
    example: ClassVar[Mapping[str, Any]] = EXAMPLE

    @classmethod
    def dead_products(cls, settings: Any, training: Training, steps: int) -> float:
        return auxk_products(cls.step_products, settings, training, steps)
