"""The description of an architecture: its name, its hyperparameters, and the numbers that a plan
counts with. Names and recipes need nothing else. This module must not import torch, whose import
takes longer than the rest of a dry run; the mathematics is in `trainer.py` beside each description.
"""

import importlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from saemake.architectures.training_settings import Training
from saemake.base.sections import Closed, Number

# Before the classes in a transcoder's config.json, which other libraries' loaders of SAEs then do
# not know: they would subtract the decoder's bias from what it reads.
TRANSCODER = "Transcoder"
Fraction = Annotated[Number, Field(ge=0, lt=1)]


class Settings(Closed):
    """An architecture's own hyperparameters. `sweep` lists the sparsities, and `checkpoints` the
    fractions of the training after which an SAE is also saved. All other settings enter the recipe
    of each SAE."""

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
        """Settings that need a minimum number of latents, with that number."""
        return {}

    def steps_needed(self) -> dict[str, int]:
        """Settings that name a step within the training, with that step."""
        return {}

    def steps_before_decay(self) -> dict[str, int]:
        """Settings that name a step before the learning rate's decay, with that step."""
        return {}

    def excludes_decay(self) -> str | None:
        """The setting, if it is on, that cannot be combined with a decaying learning rate."""
        return None


class Architecture:
    """The description of an architecture; its trainer is a subclass.

    `version` enters the recipe. Raise it whenever the architecture's mathematics changes.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    sparsity: ClassVar[str]
    trainer_class: ClassVar[str]
    dict_class: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    # Complete settings for a training of a few dozen steps, with two sparsities. Latents must be
    # active from the first step on. The tests train every architecture with them.
    example: ClassVar[Mapping[str, Any]]
    # The ways to choose latents at inference; the first is the way of dictionary_learning's loader.
    # Empty if there is only one way.
    inferences: ClassVar[tuple[str, ...]] = ()
    adam_betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    # Whether its loss takes the error of the reconstruction from `Trainer.error`, in whose
    # place an end-to-end loss can be.
    trains_end_to_end: ClassVar[bool] = False
    # The architecture that has weights of the same names and shapes, where another has them: the
    # training of one can begin from an SAE of the other. A test compares them.
    weights_of: ClassVar[str | None] = None
    # Matrix products of a training step that `plan` counts, each of 2 * B * D * F operations: the
    # encoder and the decoder, the gradient of each one's weight, and the gradient of the latents.
    step_products: ClassVar[int] = 5
    # Whether the ways to choose latents at inference are sparsities of one SAE. Frontiers then show
    # each of them as a point, not only the first.
    one_for_all: ClassVar[bool] = False
    # Memory at the peak of a step, in float32 numbers per entry of the batch's latents [B, F].
    # Measured (docs/benchmarks.md).
    live_latents: ClassVar[float] = 4.0
    # Whether it can read one site of the LM and write another: its encoder subtracts nothing but
    # `dictionary.shift`, and its loss is against the target.
    transcodes: ClassVar[bool] = False
    # Whether it is the variant with a skip connection (see saemake.architectures.get).
    skip: ClassVar[bool] = False

    @classmethod
    def stands_at(cls, *, transcoder: bool) -> bool:
        """Whether it is of transcoders, or of SAEs."""
        return cls.transcodes if transcoder else not cls.skip

    @classmethod
    def inferences_of(cls, trainer: Mapping[str, Any]) -> tuple[str, ...]:
        """The ways to choose latents at inference of the SAE that config.json's `trainer`
        describes, the default first."""
        return cls.inferences

    @classmethod
    def judged_inferences(cls, settings: Any, sparsity: float) -> tuple[str, ...]:
        """Those with which evaluations judge an SAE of this sparsity, the default first."""
        return cls.inferences

    @classmethod
    def products_of_step(cls, settings: Any, sparsity: float, latents: int) -> float:
        """`step_products` with these settings, for an SAE of this sparsity with so many latents."""
        return cls.step_products

    @classmethod
    def products_of_encoding(cls, settings: Any, sparsity: float) -> float:
        """The matrix products that encode a batch at inference."""
        return 1

    @classmethod
    def target_l0(cls, sparsity: float) -> float | None:
        """The L0 that this sparsity asks for; None if it does not ask for an L0."""
        return None

    @classmethod
    def errors_in_a_step(cls, settings: Any) -> int:
        """How many reconstructions of a step have an error of their own in the loss."""
        return 1

    @classmethod
    def weights_as(cls) -> str:
        """The same for architectures that have weights of the same names and shapes."""
        described: type[Any] = cls.__bases__[0] if cls.skip else cls
        shared = cls.weights_of or described.name
        return f"{shared} with a skip connection" if cls.skip else shared

    @classmethod
    def dead_products(cls, settings: Any, training: Training, steps: int) -> float:
        """Additional matrix products per step while latents are dead. An average over training that
        assumes that latents die as early as possible."""
        return 0.0

    @classmethod
    def trainer(cls) -> type[Any]:
        """The subclass of saemake.architectures.trainer.Trainer that trains this architecture. For
        a description `TopK` it is `TopKTrainer` in `trainer.py` beside the description. Raises
        AttributeError if there is no such class."""
        # With a skip connection it is trained by the same.
        described = cls.__bases__[0] if cls.skip else cls
        module = importlib.import_module(f"{described.__module__}.trainer")
        return getattr(module, f"{described.__name__}Trainer")
