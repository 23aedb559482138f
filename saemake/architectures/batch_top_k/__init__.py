"""BatchTopK: keeps the k * B largest activations of a batch of B tokens
(https://arxiv.org/abs/2412.06410); at inference, the activations above a threshold.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from saemake.architectures import description, register
from saemake.architectures.description import Architecture
from saemake.architectures.top_k_settings import EXAMPLE, TopKSettings, auxk_products
from saemake.architectures.training_settings import Training


@register
class BatchTopK(Architecture):
    name = "batch_top_k"
    version = 6
    sparsity = "k"
    trainer_class = "BatchTopKTrainer"
    dict_class = "BatchTopKSAE"
    weights_of = "top_k"
    transcodes = True
    trains_end_to_end = True
    live_latents = 3.3
    Settings: ClassVar[type[description.Settings]] = TopKSettings
    example: ClassVar[Mapping[str, Any]] = EXAMPLE
    inferences: ClassVar[tuple[str, ...]] = ("threshold", "top_k")

    @classmethod
    def target_l0(cls, sparsity: float) -> float | None:
        return sparsity

    @classmethod
    def dead_products(cls, settings: Any, training: Training, steps: int) -> float:
        return auxk_products(cls.step_products, settings, training, steps)
