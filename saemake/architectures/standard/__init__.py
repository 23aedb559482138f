"""The ReLU SAE of Towards Monosemanticity: unit-norm decoder columns, an l1 penalty and optional
resampling of dead latents (https://transformer-circuits.pub/2023/monosemantic-features).
"""

from saemake.architectures import register
from saemake.architectures.description import Architecture
from saemake.architectures.penalty_settings import EXAMPLE, ResamplingSettings


@register
class Standard(Architecture):
    name = "standard"
    version = 4
    sparsity = "penalty"
    trainer_class = "StandardTrainer"
    dict_class = "AutoEncoder"
    transcodes = True
    trains_end_to_end = True
    live_latents = 6.8
    Settings = ResamplingSettings
    example = EXAMPLE
