"""The hyperparameters that every architecture's training has; part of each SAE's recipe."""

from typing import Annotated, Literal

from pydantic import Field

from saemake.activations.drop_settings import TrainingDrop
from saemake.base.sections import Closed, Count, Number, Whole


class Training(Closed):
    """What every architecture's training has; part of each SAE's recipe.

    `recipe` is the version of dictionary_learning's trainers: of January 2025, which made the
    published suite, or release 0.1.0. `start_from` is the path of an SAE whose weights training
    begins with instead of drawing them (see config/start_from.py); a recipe has the hash of that
    SAE's own recipe in its place. `loss` is the error of a reconstruction: its squared distance, or
    end to end, what it changes in the LM's output (see llm/end_to_end.py).
    """

    recipe: Literal["saebench", "dictionary_learning"]
    seed: Whole
    batch_tokens: Count
    norm_batches: Count
    learning_rate: Annotated[Number, Field(gt=0)]
    warmup_steps: Whole
    decay_start_fraction: Annotated[Number, Field(gt=0, le=1)]
    autocast: Literal["float32", "bfloat16"]
    cpu_threads: Count
    start_from: str | None = Field(default=None, exclude_if=lambda path: path is None)
    # Not in a recipe at their defaults either.
    loss: Literal["mse", "kl", "ce"] = Field(default="mse", exclude_if=lambda loss: loss == "mse")
    drop: TrainingDrop = Field(
        default=TrainingDrop(), exclude_if=lambda drop: drop == TrainingDrop()
    )
