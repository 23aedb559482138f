"""What every architecture's training has: a dictionary in dictionary_learning's format, and a
training step. An architecture fills these in, in its own `trainer.py`.

Shapes: B activations in a batch, D the model's width, F latents, K kept latents.
"""

import abc
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from saemake.architectures import schedule
from saemake.architectures.constraints import Constraint
from saemake.architectures.description import Architecture
from saemake.architectures.places import Places
from saemake.architectures.training import Training


class Dictionary(nn.Module, abc.ABC):
    """The trained SAE: state dict keys and their meaning are dictionary_learning's.

    `inference` is the way of choosing latents that `encode` uses, where there are several (see
    Architecture.inferences); at first the one that dictionary_learning's loader uses. `config` is
    config.json's content, of a dictionary that was read from its files (see saemake.load).
    """

    # Which dimension of the decoder's weight runs over D: 0 of a linear layer's, 1 of a matrix that
    # multiplies from the right.
    d_model_dim: ClassVar[int] = 0

    d_model: int
    width: int
    inference: str | None = None
    negative_fires: ClassVar[bool] = True
    config: Mapping[str, Any] | None = None

    @property
    def tokens_apart(self) -> bool:
        """Whether what `encode` gives of a token depends on no other."""
        return True

    @property
    @abc.abstractmethod
    def encoder_weight(self) -> Tensor:
        """The encoder's weight, [F, D]."""

    @property
    @abc.abstractmethod
    def encoder_bias(self) -> Tensor:
        """What is added to each latent before it is rectified, [F]."""

    @property
    def decoder_rows(self) -> Tensor:
        """The decoder's weight, a row a latent."""
        return self.decoder_weight.T if self.d_model_dim == 0 else self.decoder_weight

    @property
    @abc.abstractmethod
    def decoder_weight(self) -> Tensor:
        """The decoder's weight, [D, F] or [F, D] (see `d_model_dim`)."""

    @abc.abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Activations [..., D] of any float dtype to latents [..., F] in the weights', float32:
        saemake.onednn.linear casts."""

    def listed(self, x_RD: Tensor) -> tuple[Tensor, Tensor] | None:
        """The places in the flattened latents [R, F] that `encode` keeps, those of a token side by
        side, and the values there, which may be 0; None where all latents must be looked at."""
        return None

    @abc.abstractmethod
    def decode(self, f: Tensor) -> Tensor:
        """Latents [..., F] to reconstructions [..., D]: f @ decoder_rows and a bias, which
        evaluations rely on."""

    @abc.abstractmethod
    def scale_biases(self, scale: float) -> None:
        """Turn a dictionary of activations x into the same one of activations scale * x."""

    def is_finite(self) -> bool:
        """Whether every weight is a number; asks the device."""
        return all(bool(weight.isfinite().all()) for weight in self.state_dict().values())


def latents_together(d_model: int, width: int) -> nn.Parameter:
    """A parameter [D, F] in whose memory the D numbers of a latent are side by side, as a training
    step reads and writes them."""
    return nn.Parameter(torch.empty(width, d_model).T)


@dataclass(frozen=True)
class Forward:
    """One training forward: the loss, its parts by name (detached scalars), the latents at places
    and the reconstruction."""

    loss: Tensor
    parts: dict[str, Tensor]
    f_P: Tensor
    places: Places
    x_hat_BD: Tensor

    @property
    def l0(self) -> Tensor:
        """Active latents of a token, those that are not 0, the mean; a scalar."""
        return self.f_P.count_nonzero() / self.places.tokens


class Trainer(Architecture, abc.ABC):
    """One SAE in training. Subclasses say what is theirs; `update` is the step of all of them."""

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
        self.d_model = d_model
        self.width = width
        self.sparsity_value = sparsity
        self.settings = settings
        self.training = training
        self.steps = steps
        # A generator of its own, on the CPU: what is drawn does not depend on what else is trained,
        # nor on the device.
        self.generator = torch.Generator().manual_seed(training.seed)
        self.dictionary = self.make_dictionary(self.trainer_config())
        self.initialise()
        self.dictionary.to(device)
        self.tokens_since_fired_F = torch.zeros(width, dtype=torch.long, device=device)
        # Adam copies gradients that do not lie as they are indexed: it sees those parameters
        # transposed.
        self.leaves: dict[Tensor, Tensor] = {
            parameter: parameter if parameter.is_contiguous() else nn.Parameter(parameter.data.T)
            for parameter in self.dictionary.parameters()
        }
        self.optimizer = torch.optim.Adam(
            self.leaves.values(),
            lr=training.learning_rate,
            betas=self.adam_betas,
            fused=True,
        )

    @classmethod
    @abc.abstractmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        """An untrained dictionary that config.json's `trainer` describes, to train or to load a
        state dict into."""

    @property
    def dtype(self) -> torch.dtype:
        """Of matrix products."""
        return getattr(torch, self.training.autocast)

    @property
    @abc.abstractmethod
    def constraint(self) -> Constraint:
        """What the decoder's columns and the gradients are held to."""

    @abc.abstractmethod
    def initialise(self) -> None:
        """Draw the initial weights of `self.dictionary` with `self.generator`."""

    @abc.abstractmethod
    def forward(self, x_BD: Tensor, step: int) -> Forward:
        """The loss of a normalised batch; also updates counters and thresholds."""

    @abc.abstractmethod
    def recipe_entries(self) -> dict[str, Any]:
        """The architecture's own entries of config.json's `trainer`."""

    def start(self, x_BD: Tensor) -> None:
        """Prepare on the first batch, before its step."""

    def after_optimizer(self, step: int, x_BD: Tensor) -> None:
        """What follows the optimizer's step and its constraint."""

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and plain values."""
        return {
            "dictionary": self.dictionary.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "tokens_since_fired": self.tokens_since_fired_F,
            "generator": self.generator.get_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        self.dictionary.load_state_dict(state["dictionary"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.tokens_since_fired_F.copy_(state["tokens_since_fired"])
        self.generator.set_state(state["generator"])

    def progress(self) -> dict[str, float]:
        """What changes by itself during training, for training.csv."""
        return {}

    @property
    def restart_steps(self) -> int | None:
        """After so many steps the learning rate warms up anew; None: never."""
        return None

    def learning_rate(self, step: int) -> float:
        """The learning rate of that step."""
        warmup = self.training.warmup_steps
        if self.restart_steps is not None:
            scale = schedule.restarting_scale(step, warmup, self.restart_steps)
        else:
            scale = schedule.learning_rate_scale(step, self.steps, warmup, self.decay_start)
        return self.training.learning_rate * scale

    def update(self, step: int, x_BD: Tensor) -> Forward:
        """One training step on a normalised batch [B, D]: forward, backward, Adam, and around them
        what `constraint` says. Itself it never waits for the device.
        """
        if step == 0:
            self.start(x_BD)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self.constraint.before_forward(self.dictionary)
        forward = self.forward(x_BD, step)
        forward.loss.backward()
        self.constraint.before_optimizer(self.dictionary)
        self._optimise()
        self.constraint.after_optimizer(self.dictionary)
        self.after_optimizer(step, x_BD)
        return forward

    def _optimise(self) -> None:
        for parameter, leaf in self.leaves.items():
            assert parameter.grad is not None
            leaf.grad = parameter.grad if leaf is parameter else parameter.grad.T
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.dictionary.zero_grad()

    def moments(self, parameter: Tensor) -> list[Tensor]:
        """Adam's moments of a parameter, in its shape."""
        leaf = self.leaves[parameter]
        state = self.optimizer.state[leaf]
        moments = [state["exp_avg"], state["exp_avg_sq"]]
        return moments if leaf is parameter else [moment.T for moment in moments]

    def finished(self, scale: float) -> Dictionary:
        """A copy of the dictionary as the next forward pass would see it, for activations that were
        not divided by `scale`. Training goes on as without it."""
        dictionary = copy.deepcopy(self.dictionary)
        self.constraint.before_forward(dictionary)
        dictionary.scale_biases(scale)
        return dictionary

    def count_fired(self, fired_F: Tensor, places: Places) -> None:
        """Count a batch's tokens more for the latents that did not fire (bool [F]), 0 for the
        others."""
        self.tokens_since_fired_F += places.tokens
        self.tokens_since_fired_F.masked_fill_(fired_F, 0)

    @property
    def decay_start(self) -> int:
        """The step that the decay of the learning rate starts at; `steps` where there is none."""
        return int(self.training.decay_start_fraction * self.steps)

    def trainer_config(self) -> dict[str, Any]:
        """config.json's `trainer`, with the keys of dictionary_learning's trainers."""
        return {
            "trainer_class": self.trainer_class,
            "dict_class": self.dict_class,
            "recipe": self.training.recipe,
            "activation_dim": self.d_model,
            "dict_size": self.width,
            "lr": self.training.learning_rate,
            "adam_betas": list(self.adam_betas),
            "autocast_dtype": self.training.autocast,
            "steps": self.steps,
            "warmup_steps": self.training.warmup_steps,
            "decay_start": self.decay_start if self.decay_start < self.steps else None,
            "seed": self.training.seed,
            **self.recipe_entries(),
        }
