"""JumpReLU: each latent has a threshold, trained with a straight-through estimate of its gradient
(https://arxiv.org/abs/2407.14435). The penalty is on the distance from a target L0. Another, off
by default, is quadratic in how often each latent fires, and keeps latents from firing on a large
part of all tokens (Google DeepMind's progress update of March 2025, "Negative Results for SAEs On
Downstream Tasks", on modifying the sparsity penalty; Gemma Scope 2 has such a penalty too).
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from saemake.architectures import description, register
from saemake.architectures.description import Architecture
from saemake.base.sections import Count, Number, Whole


class JumpReluSettings(description.Settings):
    sweep: list[Count] = Field(min_length=1)
    sparsity_warmup_steps: Whole
    sparsity_penalty: Annotated[Number, Field(gt=0)]
    bandwidth: Annotated[Number, Field(gt=0)]
    # Not in a recipe at its default.
    frequency_penalty: Annotated[Number, Field(ge=0)] = Field(
        default=0.0, exclude_if=lambda penalty: penalty == 0
    )

    def latents_needed(self) -> dict[str, int]:
        return {"sweep": max(self.sweep)}

    def steps_before_decay(self) -> dict[str, int]:
        return {"sparsity_warmup_steps": self.sparsity_warmup_steps}


@register
class JumpRelu(Architecture):
    name = "jump_relu"
    version = 4
    sparsity = "l0"
    trainer_class = "JumpReluTrainer"
    dict_class = "JumpReluAutoEncoder"
    transcodes = True
    trains_end_to_end = True
    live_latents = 5.6
    Settings = JumpReluSettings
    example: ClassVar[Mapping[str, Any]] = {
        "sweep": [4, 16],
        "sparsity_warmup_steps": 5,
        "sparsity_penalty": 1.0,
        "bandwidth": 0.001,
    }
    adam_betas = (0.0, 0.999)

    @classmethod
    def target_l0(cls, sparsity: float) -> float | None:
        return sparsity
