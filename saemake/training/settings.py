"""The hyperparameters that every architecture's training has; part of each SAE's recipe."""

from typing import Annotated, Literal

from pydantic import Field

from saemake.sections import Closed, Count, Flag, Number, Whole


class Drop(Closed):
    """Positions that are left out: by their token's id (`bos`; `special`, any special token), or
    because their activation's norm exceeds this multiple of the median of its LM batch."""

    bos: Flag = False
    special: Flag = False
    norm_over_median: Annotated[Number, Field(gt=1)] | None = None

    @property
    def kinds(self) -> list[Literal["bos", "special"]]:
        """The kinds of tokens that are left out by their ids."""
        bos: list[Literal["bos", "special"]] = ["bos"] if self.bos else []
        return bos + (["special"] if self.special else [])

    @property
    def on(self) -> bool:
        """Whether anything is left out."""
        return bool(self.kinds) or self.norm_over_median is not None

    @property
    def said(self) -> str:
        """What is left out, in the config's words; empty for nothing."""
        norm = [] if self.norm_over_median is None else [f"norms over {self.norm_over_median:g} x"]
        return ", ".join([*self.kinds, *(f"{words} the median" for words in norm)])


# Not in a recipe where nothing is dropped: what was made before there was such a
# key keeps its hash.
RecordedDrop = Annotated[Drop, Field(exclude_if=lambda drop: not drop.on)]


class TrainingDrop(Drop):
    """The same for training. How many positions `norm_over_median` leaves out is known only while
    training: so much more text is tokenised, as a share."""

    reserve: Annotated[Number, Field(ge=0, le=1)] = 0.05


class Training(Closed):
    """What every architecture's training has; part of each SAE's recipe.

    `recipe` is the version of dictionary_learning's trainers: of January 2025, which made the
    published suite, or release 0.1.0.
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
    # Not in a recipe at its default either.
    drop: TrainingDrop = Field(
        default=TrainingDrop(), exclude_if=lambda drop: drop == TrainingDrop()
    )
