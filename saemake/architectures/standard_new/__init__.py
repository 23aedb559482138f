"""The ReLU SAE of Anthropic's April 2024 update: decoder norms are free, and the penalty is
weighted by them (https://transformer-circuits.pub/2024/april-update). The published suite calls it
"Standard".
"""

from saemake.architectures import register
from saemake.architectures.description import Architecture
from saemake.architectures.penalty_settings import EXAMPLE, PenaltySettings


@register
class StandardNew(Architecture):
    name = "standard_new"
    version = 5
    sparsity = "penalty"
    trainer_class = "StandardTrainerAprilUpdate"
    dict_class = "AutoEncoder"
    weights_of = "standard"
    transcodes = True
    trains_end_to_end = True
    live_latents = 6.0
    Settings = PenaltySettings
    example = EXAMPLE
