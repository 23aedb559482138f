"""Settings of the three architectures whose sparsity is k: `top_k`, `batch_top_k` and
`matryoshka_batch_top_k`. Without torch; their mathematics is in top_k_family.py.
"""

from typing import Annotated, Any

from pydantic import Field

from saemake.architectures import auxk_settings
from saemake.architectures.auxk_settings import AuxKSettings
from saemake.architectures.training_settings import Training
from saemake.base.sections import Count, Number, Whole

EXAMPLE: dict[str, Any] = {
    **auxk_settings.EXAMPLE,
    "threshold_beta": 0.5,
    "threshold_start_step": 10,
}


class TopKSettings(AuxKSettings):
    """`k_anneal_steps`: k falls linearly from the model's width to its value over so many steps
    (None: k is constant)."""

    threshold_beta: Annotated[Number, Field(gt=0, lt=1)]
    threshold_start_step: Whole
    k_anneal_steps: Count | None = None

    def steps_needed(self) -> dict[str, int]:
        needed = {"threshold_start_step": self.threshold_start_step}
        if self.k_anneal_steps is not None:
            needed["k_anneal_steps"] = self.k_anneal_steps
        return needed


def auxk_products(
    step_products: int, settings: TopKSettings, training: Training, steps: int
) -> float:
    """Matrix products that AuxK adds to a step, as an average over training. 0 for recipe
    `saebench`, whose AuxK never finds a dead latent."""
    if training.recipe == "saebench":
        return 0.0
    return auxk_settings.auxk_products(step_products, settings, training, steps)
