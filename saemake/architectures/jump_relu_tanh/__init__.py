"""JumpReLU as Anthropic trains it ("Dictionary Learning Optimization Techniques",
https://transformer-circuits.pub/2025/january-update): a tanh of each activation is the sparsity
penalty, and a loss on pre-activations brings silent latents back. After SAELens 6.54.12
(`jumprelu_sparsity_loss_mode: tanh`), thresholds are trained themselves and not their logarithms.

The hyperparameters are for activations whose mean squared norm is their width, as in the update.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from saemake.architectures import description, register
from saemake.architectures.description import Architecture
from saemake.base.sections import Count, Flag, Number, Rate, Whole


class JumpReluTanhSettings(description.Settings):
    """`sparsity_warmup_steps` None means that the penalty grows over the whole training.

    The pre-activation loss is on latents that have not fired for `dead_after_tokens`: on all with
    0, as in the update. `ste_to_input`: whether the straight-through estimate also gives a
    gradient to pre-activations, and so to the encoder.
    """

    sweep: list[Rate] = Field(min_length=1)
    sparsity_warmup_steps: Count | None = None
    tanh_scale: Rate
    bandwidth: Rate
    ste_to_input: Flag
    initial_threshold: Rate
    initial_l0: Count
    pre_act_loss_coefficient: Annotated[Number, Field(ge=0)]
    dead_after_tokens: Whole

    def steps_needed(self) -> dict[str, int]:
        warmup = self.sparsity_warmup_steps
        return {} if warmup is None else {"sparsity_warmup_steps": warmup}


@register
class JumpReluTanh(Architecture):
    name = "jump_relu_tanh"
    weights_of = "jump_relu"
    version = 1
    sparsity = "penalty"
    trainer_class = "JumpReluTanhTrainer"
    dict_class = "JumpReluAutoEncoder"
    live_latents = 12.0
    Settings = JumpReluTanhSettings
    example: ClassVar[Mapping[str, Any]] = {
        "sweep": [0.2, 1.0],
        "sparsity_warmup_steps": 5,
        "tanh_scale": 4.0,
        "bandwidth": 2.0,
        "ste_to_input": True,
        "initial_threshold": 0.1,
        "initial_l0": 20,
        "pre_act_loss_coefficient": 3e-6,
        "dead_after_tokens": 0,
    }
