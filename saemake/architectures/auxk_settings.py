"""Settings of architectures that keep k latents of each token and pull dead latents back with an
AuxK loss: `abs_top_k` and `hierarchical_top_k`. Without torch; the loss is in auxk.py.
"""

from typing import Annotated, Any

from pydantic import Field

from saemake.architectures.description import Settings
from saemake.architectures.training_settings import Training
from saemake.base.sections import Count, Number

EXAMPLE: dict[str, Any] = {"sweep": [4, 16], "auxk_alpha": 0.03125, "dead_after_tokens": 10**7}


class AuxKSettings(Settings):
    sweep: list[Count] = Field(min_length=1)
    auxk_alpha: Annotated[Number, Field(ge=0)]
    dead_after_tokens: Count

    def latents_needed(self) -> dict[str, int]:
        return {"sweep": max(self.sweep)}


def auxk_products(
    step_products: int, settings: AuxKSettings, training: Training, steps: int
) -> float:
    """Matrix products that AuxK adds to a step, as an average over training: one more step over the
    dead latents, of which this takes all to die as early as possible."""
    if settings.auxk_alpha == 0:
        return 0.0
    steps_without_dead = settings.dead_after_tokens // training.batch_tokens
    return step_products * max(1 - steps_without_dead / steps, 0)
