"""P-annealing: a ReLU SAE whose penalty is an Lp norm; p falls from 1 during training
(https://arxiv.org/abs/2408.00113). Each time p falls, the penalty's coefficient is adapted so that
the mean penalty of recent batches stays the same.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from saemake.architectures import register
from saemake.architectures.description import Architecture
from saemake.architectures.penalty_settings import EXAMPLE, ResamplingSettings
from saemake.base.sections import Count, Number, Whole

Power = Annotated[Number, Field(gt=0, le=1)]


class PAnnealSettings(ResamplingSettings):
    """`anneal_end` None means the last step of the training."""

    sparsity_function: Literal["Lp", "Lp^p"]
    p_start: Power
    p_end: Power
    anneal_start: Whole
    anneal_end: Count | None = None
    n_sparsity_updates: Annotated[Count, Field(ge=2)] | Literal["continuous"]
    sparsity_queue_length: Count

    @field_validator("p_end")
    @classmethod
    def _falls(cls, p_end: float, others: ValidationInfo) -> float:
        if p_end > others.data.get("p_start", 1):
            raise ValueError(f"{p_end} is above p_start {others.data['p_start']}")
        return p_end

    @field_validator("n_sparsity_updates")
    @classmethod
    def _fit(cls, updates: int | str, others: ValidationInfo) -> int | str:
        start, end = others.data.get("anneal_start", 0), others.data.get("anneal_end")
        least = 2 if isinstance(updates, str) else updates
        if end is not None and end - start < least - 1:
            raise ValueError(
                f"{updates} updates do not fit between anneal_start {start} and anneal_end {end}"
            )
        return updates

    def steps_needed(self) -> dict[str, int]:
        end = {} if self.anneal_end is None else {"anneal_end": self.anneal_end - 2}
        # No two updates may fall on the same step.
        updates = self.n_sparsity_updates
        last = self.anneal_start + (1 if isinstance(updates, str) else updates)
        return {**super().steps_needed(), "anneal_start": last, **end}


@register
class PAnneal(Architecture):
    name = "p_anneal"
    version = 4
    sparsity = "penalty"
    trainer_class = "PAnnealTrainer"
    dict_class = "AutoEncoder"
    weights_of = "standard"
    transcodes = True
    trains_end_to_end = True
    live_latents = 7.8
    Settings = PAnnealSettings
    example: ClassVar[Mapping[str, Any]] = {
        **EXAMPLE,
        "sparsity_function": "Lp^p",
        "p_start": 1.0,
        "p_end": 0.2,
        "anneal_start": 20,
        "n_sparsity_updates": 10,
        "sparsity_queue_length": 10,
    }
