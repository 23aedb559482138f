"""TopK: keeps the k largest activations of each token (https://arxiv.org/abs/2406.04093)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from saemake.architectures import description, register
from saemake.architectures.description import Architecture
from saemake.architectures.top_k_settings import EXAMPLE, TopKSettings, auxk_products
from saemake.architectures.training_settings import Training


@register
class TopK(Architecture):
    name = "top_k"
    version = 6
    sparsity = "k"
    trainer_class = "TopKTrainer"
    dict_class = "AutoEncoderTopK"
    transcodes = True
    trains_end_to_end = True
    live_latents = 3.3
    Settings: ClassVar[type[description.Settings]] = TopKSettings
    example: ClassVar[Mapping[str, Any]] = EXAMPLE
    inferences: ClassVar[tuple[str, ...]] = ("top_k", "threshold")

    @classmethod
    def dead_products(cls, settings: Any, training: Training, steps: int) -> float:
        return auxk_products(cls.step_products, settings, training, steps)
