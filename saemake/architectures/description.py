"""What an architecture is called, its hyperparameters, and what a plan counts with: all that names
and recipes need. Without torch, whose import takes longer than all else that a dry run does; the
maths is in the `trainer.py` beside each description.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from saemake.architectures.training import Training
from saemake.base.sections import Closed, Number

if TYPE_CHECKING:
    from saemake.architectures.trainer import Trainer

Fraction = Annotated[Number, Field(ge=0, lt=1)]


class Settings(Closed):
    """An architecture's own hyperparameters. `sweep` lists its sparsities, `checkpoints` when an
    SAE is also saved during its training; the rest enters the recipe of each of its SAEs."""

    OUTSIDE_RECIPE: ClassVar[set[str]] = {"sweep", "checkpoints"}

    sweep: list[Any]
    checkpoints: list[Fraction] = Field(default=[])

    @field_validator("sweep", "checkpoints")
    @classmethod
    def _once_each(cls, values: list[Any]) -> list[Any]:
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{value} is there more than once")
        return values

    def latents_needed(self) -> dict[str, int]:
        """Settings that need a dictionary of some width, and that width."""
        return {}

    def steps_needed(self) -> dict[str, int]:
        """Settings that name a step, which must lie within the training."""
        return {}

    def steps_before_decay(self) -> dict[str, int]:
        """Settings that name a step, which must lie before the decay of the learning rate."""
        return {}

    def excludes_decay(self) -> str | None:
        """The setting, if one is on, that a decaying learning rate does not go with."""
        return None


class Architecture:
    """An architecture's description.

    `version` enters the recipe: whoever changes the maths of an architecture raises it.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    sparsity: ClassVar[str]
    trainer_class: ClassVar[str]
    dict_class: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    # Complete settings of a training of some dozen steps, with two sparsities by which latents are
    # active from the first step on: what the tests train every architecture with.
    example: ClassVar[Mapping[str, Any]]
    # Ways of choosing latents at inference, the one that dictionary_learning's loader uses first;
    # none to name where there is one only.
    inferences: ClassVar[tuple[str, ...]] = ()
    adam_betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    # What `plan` counts with. Matrix products of a training step, each of 2 * B * D * F operations:
    # encoder and decoder, and backward what either gives for its weight and the decoder for its
    # input.
    step_products: ClassVar[int] = 5
    # Of memory, numbers of 4 bytes for each of the batch's latents [B, F] that live at a step's
    # largest moment; measured (docs/benchmarks.md).
    live_latents: ClassVar[float] = 4.0

    @classmethod
    def target_l0(cls, sparsity: float) -> float | None:
        """The L0 that this sparsity asks for; None where it asks for none."""
        return None

    @classmethod
    def dead_products(cls, settings: Any, training: Training, steps: int) -> float:
        """Matrix products that a step has besides while latents are dead: the mean over all steps,
        were some dead as soon as they can be."""
        return 0.0

    @classmethod
    def trainer(cls) -> "type[Trainer]":
        """What trains it: `Trainer` of the module beside the description."""
        return importlib.import_module(f"{cls.__module__}.trainer").Trainer
