"""The hyperparameters that every architecture's training has; part of each SAE's recipe."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from saemake.sections import Closed, Number


class Training(Closed):
    """What every architecture's training has; part of each SAE's recipe."""

    seed: Annotated[int, Field(ge=0)]
    batch_tokens: PositiveInt
    norm_batches: PositiveInt
    learning_rate: Annotated[Number, Field(gt=0)]
    warmup_steps: Annotated[int, Field(ge=0)]
    decay_start_fraction: Annotated[Number, Field(gt=0, le=1)]
    autocast: Literal["float32", "bfloat16"]
    cpu_threads: PositiveInt
