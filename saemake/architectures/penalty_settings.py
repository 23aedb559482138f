"""Settings of the architectures whose sparsity is a penalty."""

from typing import Annotated, Any

from pydantic import Field

from saemake.architectures.description import Settings
from saemake.base.sections import Count, Number, Whole

EXAMPLE: dict[str, Any] = {"sweep": [0.05, 0.2], "sparsity_warmup_steps": 5}


class PenaltySettings(Settings):
    """The penalty grows linearly from 0 over `sparsity_warmup_steps`."""

    sweep: list[Annotated[Number, Field(gt=0)]] = Field(min_length=1)
    sparsity_warmup_steps: Whole

    def steps_before_decay(self) -> dict[str, int]:
        return {"sparsity_warmup_steps": self.sparsity_warmup_steps}


class ResamplingSettings(PenaltySettings):
    """Dead latents are resampled every `resample_steps` (None: never)."""

    resample_steps: Count | None = None

    def steps_needed(self) -> dict[str, int]:
        return {} if self.resample_steps is None else {"resample_steps": self.resample_steps}

    def excludes_decay(self) -> str | None:
        return None if self.resample_steps is None else "resample_steps"
