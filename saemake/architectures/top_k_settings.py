"""Settings of the three architectures whose sparsity is k: `top_k`, `batch_top_k` and
`matryoshka_batch_top_k`. Without torch; their mathematics is in top_k_family.py.
"""

from typing import Annotated, Any

from pydantic import Field

from saemake.architectures.description import Settings
from saemake.architectures.training_settings import Training
from saemake.base.sections import Count, Number, Whole

EXAMPLE: dict[str, Any] = {
    "sweep": [4, 16],
    "auxk_alpha": 0.03125,
    "dead_after_tokens": 10**7,
    "threshold_beta": 0.5,
    "threshold_start_step": 10,
}


class TopKSettings(Settings):
    """`k_anneal_steps`: k falls linearly from the model's width to its value over so many steps
    (None: k is constant)."""

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


def auxk_products(
    step_products: int, settings: TopKSettings, training: Training, steps: int
) -> float:
    """Matrix products that AuxK adds to a step, as an average over training. AuxK is one more step
    over the dead latents; this assumes that all latents die as early as possible. 0 for recipe
    `saebench`, whose AuxK never finds a dead latent."""
    if training.recipe == "saebench" or settings.auxk_alpha == 0:
        return 0.0
    steps_without_dead = settings.dead_after_tokens // training.batch_tokens
    return step_products * max(1 - steps_without_dead / steps, 0)
