"""What every architecture has: hyperparameters, a dictionary in dictionary_learning's format, and a
training step. An architecture is one file that fills these in and registers itself.

Shapes: B activations in a batch, D the model's width, F latents, K kept latents.
"""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import field_validator
from torch import Tensor, nn

from saemake.sections import Closed
from saemake.training import schedule
from saemake.training.settings import Training


class Settings(Closed):
    """An architecture's own hyperparameters. `sweep` lists its sparsities; the rest enters the
    recipe of each of its SAEs."""

    sweep: list[Any]

    @field_validator("sweep")
    @classmethod
    def _once_each(cls, sweep: list[Any]) -> list[Any]:
        for value in sweep:
            if sweep.count(value) > 1:
                raise ValueError(f"{value} is there more than once")
        return sweep

    def least_width(self) -> int:
        """The narrowest dictionary that every sparsity of the sweep fits in."""
        return 1

    def steps_needed(self) -> dict[str, int]:
        """Settings that name a step, which must lie within the training."""
        return {}


class Dictionary(nn.Module, abc.ABC):
    """The trained SAE: state dict keys and their meaning are dictionary_learning's."""

    d_model: int
    width: int

    @abc.abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Activations [..., D] to latents [..., F]."""

    @abc.abstractmethod
    def decode(self, f: Tensor) -> Tensor:
        """Latents [..., F] to reconstructions [..., D]."""

    @abc.abstractmethod
    def scale_biases(self, scale: float) -> None:
        """Turn a dictionary of activations x into the same one of activations scale * x."""


@dataclass(frozen=True)
class Forward:
    """One training forward: the loss, its parts by name, the latents and the reconstruction."""

    loss: Tensor
    parts: dict[str, Tensor]
    f_BF: Tensor
    x_hat_BD: Tensor


class Architecture(abc.ABC):
    """One SAE in training. Subclasses say what is theirs; `update` is the step of all of them.

    `version` enters the recipe: whoever changes the maths of an architecture raises it.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    sparsity: ClassVar[str]
    trainer_class: ClassVar[str]
    dict_class: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    adam_betas: ClassVar[tuple[float, float]] = (0.9, 0.999)

    def __init__(
        self,
        *,
        d_model: int,
        width: int,
        sparsity: float,
        settings: Any,
        training: Training,
        steps: int,
        device: torch.device,
    ) -> None:
        self.settings = settings
        self.training = training
        self.steps = steps
        # A generator of its own, on the CPU: the weights do not depend on what else is trained,
        # nor on the device.
        generator = torch.Generator().manual_seed(training.seed)
        self.dictionary = self.make_dictionary(d_model, width, sparsity)
        self.initialise(generator)
        self.dictionary.to(device)
        self.optimizer = torch.optim.Adam(
            self.dictionary.parameters(),
            lr=training.learning_rate,
            betas=self.adam_betas,
            fused=True,
        )

    @classmethod
    @abc.abstractmethod
    def make_dictionary(cls, d_model: int, width: int, sparsity: float) -> Dictionary:
        """An untrained dictionary of that shape, for training or for loading a state dict into."""

    @abc.abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the initial weights of `self.dictionary`."""

    @abc.abstractmethod
    def forward(self, x_BD: Tensor, step: int) -> Forward:
        """The loss of a normalised batch, under autocast; also updates counters and thresholds."""

    @abc.abstractmethod
    def recipe_entries(self) -> dict[str, Any]:
        """The architecture's own entries of config.json's `trainer`."""

    def start(self, x_BD: Tensor) -> None:
        """Prepare on the first batch, before its step."""

    def before_forward(self) -> None:
        """Constrain the weights before the forward pass."""

    def before_optimizer(self) -> None:
        """Constrain the clipped gradients before the optimizer's step."""

    def update(self, step: int, x_BD: Tensor) -> Forward:
        """One training step on a normalised batch [B, D], in January 2025's order: constrain,
        forward, backward, clip to norm 1, constrain the gradient, Adam. Itself it never waits for
        the device.
        """
        if step == 0:
            self.start(x_BD)
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate * schedule.learning_rate_scale(
                step, self.steps, self.training.warmup_steps, self.decay_start
            )
        self.before_forward()
        with torch.autocast(
            x_BD.device.type,
            dtype=torch.bfloat16,
            enabled=self.training.autocast == "bfloat16",
        ):
            forward = self.forward(x_BD, step)
        forward.loss.backward()
        nn.utils.clip_grad_norm_(self.dictionary.parameters(), 1.0)
        self.before_optimizer()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return forward

    @property
    def decay_start(self) -> int:
        """The step that the decay of the learning rate starts at."""
        return int(self.training.decay_start_fraction * self.steps)

    def trainer_config(self) -> dict[str, Any]:
        """config.json's `trainer`, with the keys of dictionary_learning's trainers."""
        return {
            "trainer_class": self.trainer_class,
            "dict_class": self.dict_class,
            "activation_dim": self.dictionary.d_model,
            "dict_size": self.dictionary.width,
            "lr": self.training.learning_rate,
            "steps": self.steps,
            "warmup_steps": self.training.warmup_steps,
            "decay_start": self.decay_start,
            "seed": self.training.seed,
            **self.recipe_entries(),
        }


@torch.no_grad()
def unit_norm_columns_(weight_DF: Tensor) -> None:
    """Divide each column by its norm (plus the dtype's epsilon), in place."""
    weight_DF /= weight_DF.norm(dim=0, keepdim=True) + torch.finfo(weight_DF.dtype).eps


@torch.no_grad()
def remove_parallel_gradient_(weight_DF: Tensor) -> None:
    """Take from each column's gradient its part along the column as it is (a unit-norm one up to
    rounding: January 2025 did not normalise again), in place."""
    assert weight_DF.grad is not None
    parallel_F = (weight_DF.grad * weight_DF).sum(dim=0, keepdim=True)
    weight_DF.grad -= parallel_F * weight_DF
