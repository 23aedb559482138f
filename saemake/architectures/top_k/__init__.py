"""TopK: the k largest activations of each token (https://arxiv.org/abs/2406.04093)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from saemake.architectures import description, register
from saemake.architectures.description import Architecture
from saemake.architectures.training import Training
from saemake.base.sections import Count, Number, Whole


class TopKSettings(description.Settings):
    """`k_anneal_steps`: k falls to its value from the model's width over so many steps (None: it
    does not)."""

    sweep: list[Count] = Field(min_length=1)
    auxk_alpha: Annotated[Number, Field(ge=0)]
    dead_after_tokens: Count
    threshold_beta: Annotated[Number, Field(gt=0, lt=1)]
    threshold_start_step: Whole
    k_anneal_steps: Count | None = None

    def latents_needed(self) -> dict[str, int]:
        return {"sweep": max(self.sweep)}

    def steps_needed(self) -> dict[str, int]:
        needed = {"threshold_start_step": self.threshold_start_step}
        if self.k_anneal_steps is not None:
            needed["k_anneal_steps"] = self.k_anneal_steps
        return needed


@register
class TopK(Architecture):
    name = "top_k"
    version = 6
    sparsity = "k"
    trainer_class = "TopKTrainer"
    dict_class = "AutoEncoderTopK"
    live_latents = 3.3
    Settings: ClassVar[type[description.Settings]] = TopKSettings
    example: ClassVar[Mapping[str, Any]] = {
        "sweep": [4, 16],
        "auxk_alpha": 0.03125,
        "dead_after_tokens": 10**7,
        "threshold_beta": 0.5,
        "threshold_start_step": 10,
    }
    inferences: ClassVar[tuple[str, ...]] = ("top_k", "threshold")

    @classmethod
    def dead_products(cls, settings: Any, training: Training, steps: int) -> float:
        """AuxK takes a step of the dead latents, at most of all; January's found none."""
        if training.recipe == "saebench" or settings.auxk_alpha == 0:
            return 0.0
        before = settings.dead_after_tokens // training.batch_tokens
        return cls.step_products * max(1 - before / steps, 0)
