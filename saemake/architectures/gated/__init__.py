"""Gated: one encoder decides which latents fire, and a rescaled copy of it decides how strongly
(https://arxiv.org/abs/2404.16014).
"""

from saemake.architectures import register
from saemake.architectures.description import Architecture
from saemake.architectures.penalty_settings import EXAMPLE, PenaltySettings


@register
class Gated(Architecture):
    name = "gated"
    version = 4
    sparsity = "penalty"
    trainer_class = "GatedSAETrainer"
    dict_class = "GatedAutoEncoder"
    transcodes = True
    trains_end_to_end = True
    # Two more than others: the gate's reconstruction, forward and backward. It gives no gradient
    # for the decoder's weight.
    step_products = 7
    live_latents = 13.0
    Settings = PenaltySettings
    example = EXAMPLE
    adam_betas = (0.0, 0.999)
