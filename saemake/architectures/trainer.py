"""The training step that all architectures share. An architecture adds its own loss in its
`trainer.py`.

Shapes: B activations in a batch, D the model's width, F latents, P places (see places.py).
"""

import abc
import copy
import dataclasses
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from saemake.architectures import losses, products, schedule
from saemake.architectures.constraints import Constraint, normalise_
from saemake.architectures.description import TRANSCODER, Architecture
from saemake.architectures.dictionary import Dictionary
from saemake.architectures.encoding import Encoding
from saemake.architectures.optimizers import RowAdam, optimizer_of
from saemake.architectures.places import Places
from saemake.architectures.replays import Numbers, Replays
from saemake.architectures.training_settings import Training
from saemake.base.errors import SaemakeError

# How far from 1 a norm may be of an SAE that has its decoder's directions at norm 1.
NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Forward:
    """The result of one training forward pass: the loss (float32 scalar with its graph), the parts
    of the loss by name (detached scalars), the latents' values at places [P], the places, and the
    reconstruction of the target [B, D]."""

    loss: Tensor
    parts: dict[str, Tensor]
    f_P: Tensor
    places: Places
    x_hat_BD: Tensor

    def detached(self) -> "Forward":
        """The same without graphs. A capture fails while a graph of an earlier step is alive."""
        return dataclasses.replace(
            self,
            loss=self.loss.detach(),
            f_P=self.f_P.detach(),
            places=self.places.detached(self.f_P.detach()),
            x_hat_BD=self.x_hat_BD.detach(),
        )

    @property
    def l0(self) -> Tensor:
        """Mean number of latents per token that are not 0; a scalar."""
        return self.f_P.count_nonzero() / self.places.tokens


class Trainer(Architecture, abc.ABC):
    """One SAE, or transcoder, in training. `update` is the training step of all architectures; a
    subclass supplies the dictionary, the initial weights and the loss.

    A batch is what the dictionary reads, x_BD, and what it must reconstruct, the target y_BD. An
    SAE's target is x_BD itself, the same tensor.
    """

    # Whether a GPU may replay `forward` and the hook `after_backward`: they take all that changes
    # from step to step from `self.now`, and change Python's values only where `phase` changes.
    # A subclass must say it again.
    replayed: ClassVar[bool] = False

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
        is_transcoder: bool = False,
        with_skip: bool = False,
    ) -> None:
        self.is_transcoder, self.with_skip = is_transcoder, with_skip
        self.d_model = d_model
        self.width = width
        self.sparsity_value = sparsity
        self.settings = settings
        self.training = training
        self.steps = steps
        # Each SAE has its own generator, on the CPU. So its random draws depend neither on the
        # SAEs that train beside it nor on the device.
        self.generator = torch.Generator().manual_seed(training.seed)
        self.dictionary = self.described_dictionary(self.trainer_config())
        if is_transcoder:
            self.initialise_transcoder()
        else:
            self.initialise()
        self.dictionary.to(device)
        self.tokens_since_fired_F = torch.zeros(width, dtype=torch.long, device=device)
        self.optimizer = optimizer_of(
            self.dictionary,
            self.constraint,
            training.learning_rate,
            self.adam_betas,
            self.dtype,
        )
        # The end-to-end loss of reconstructions of the step's target (see update).
        self.end_to_end: Callable[[Tensor], Tensor] | None = None
        # Whether the initial weights are drawn, or those of another SAE (see begin_with).
        self.drawn = True
        self.numbers = Numbers(device)
        self.now: Mapping[str, Any] = {}
        self.replays = Replays(isinstance(self.optimizer, RowAdam) and device.type == "cuda")

    @classmethod
    @abc.abstractmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        """A dictionary with the shape that config.json's `trainer` section describes. Its weights
        are to be drawn by `initialise` or loaded from a state dict."""

    @classmethod
    def described_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        """The same, as a transcoder where the section says so."""
        dictionary = cls.make_dictionary(config)
        if config.get("transcoder"):
            dictionary.transcode(skip=bool(config.get("skip")))
        return dictionary

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of matrix products in a training step."""
        return getattr(torch, self.training.autocast)

    @property
    @abc.abstractmethod
    def constraint(self) -> Constraint:
        """The constraint on decoder columns and gradients."""

    @abc.abstractmethod
    def initialise(self) -> None:
        """Draw the initial weights of `self.dictionary`, an SAE's, with `self.generator` only."""

    @torch.no_grad()
    def initialise_transcoder(self) -> None:
        """The same of a transcoder: the encoder as torch draws a linear layer, the decoder 0, as in
        sparsify. A decoder of unit norm cannot be 0: its directions are normal."""
        dictionary = self.dictionary
        bound = self.d_model**-0.5
        dictionary.encoder_weight.uniform_(-bound, bound, generator=self.generator)
        dictionary.encoder_bias.zero_()
        if self.constraint.unit_norm is None:
            dictionary.decoder_weight.zero_()
        else:
            dictionary.decoder_weight.normal_(generator=self.generator)
            normalise_(dictionary.decoder_weight, dictionary.d_model_dim, epsilon=0.0)

    @abc.abstractmethod
    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        """Compute the loss of a normalised batch against its target. Also updates counters and
        thresholds. It takes the numbers of `schedule` from `self.now`, which `update` sets."""

    @abc.abstractmethod
    def recipe_entries(self) -> dict[str, Any]:
        """The architecture's own entries in the `trainer` section of config.json."""

    @property
    def error_name(self) -> str:
        """What the error of the reconstruction is called among the parts of the loss."""
        return "l2" if self.training.loss == "mse" else self.training.loss

    def error(self, y_BD: Tensor, y_hat_BD: Tensor) -> Tensor:
        """The error of a reconstruction of the step's target, [B, D] each; float32 scalar. It is
        the squared error, or the end-to-end loss that `update` was given."""
        if self.end_to_end is None:
            return losses.reconstruction(y_BD, y_hat_BD)
        return self.end_to_end(y_hat_BD)

    def encoding(self, x_BD: Tensor) -> Encoding:
        """The batch's latents before any is dropped, of a dictionary whose encoder subtracts
        `shift` and adds `encoder_bias`."""
        dictionary = self.dictionary
        return Encoding(
            x_BD,
            dictionary.encoder_weight,
            dictionary.encoder_bias,
            dictionary.shift,
            self.dtype,
            dictionary.encoder_copy,
        )

    def base(self, x_BD: Tensor) -> Tensor:
        """What the latents' rows are added to: the decoder's bias, [D], and what a skip connection
        makes of the batch, [B, D]."""
        bias_D, weight_DD = self.dictionary.output_bias, self.dictionary.W_skip
        return bias_D if weight_DD is None else bias_D + self.skipped(weight_DD, x_BD)

    def skipped(self, weight_DD: Tensor, x_BD: Tensor) -> Tensor:
        """What a skip connection makes of the batch, [B, D]."""
        return products.skipped(weight_DD, x_BD, self.dtype)

    def start(self, x_BD: Tensor, y_BD: Tensor) -> None:
        """Hook: prepare the drawn weights on the first batch, before its step. A transcoder starts
        from the means: its latents are centred, its reconstruction is the target's mean, as in
        sparsify."""
        if self.is_transcoder:
            dictionary = self.dictionary
            centre_F = -(dictionary.encoder_weight.detach() @ x_BD.float().mean(dim=0))
            dictionary.encoder_bias.data.copy_(centre_F)
            dictionary.output_bias.data.copy_(y_BD.float().mean(dim=0))

    @torch.no_grad()
    def begin_with(
        self, source: Dictionary, scale: float, target_scale: float | None = None
    ) -> None:
        """Take the weights of another SAE, which takes raw activations, in place of the drawn ones.
        `scale` and `target_scale` are as in `finished`, whose inverse this is. Buffers that the
        sparsity decides stay (see `own_buffers`); the source is changed.

        Raises SaemakeError where the weights have other names or shapes, or where the constraint on
        the decoder would change what the SAE computes.
        """
        if source.d_model != self.d_model:
            raise SaemakeError(
                f"it takes activations {source.d_model} wide, not {self.d_model}: its LM is another"
            )
        if source.transcodes != self.is_transcoder:
            kind, other = ("a transcoder", "an SAE")[:: 1 if source.transcodes else -1]
            raise SaemakeError(f"it is {kind}, not {other}")
        source.unscale(1 / scale, 1 / (scale if target_scale is None else target_scale))
        own, given = self.dictionary.state_dict(), source.state_dict()
        if (reason := _other_weights(own, given)) is not None:
            raise SaemakeError(reason)
        kept = self.own_buffers(source)
        for name, tensor in own.items():
            if name not in kept:
                tensor.copy_(given[name])
        off = (self.dictionary.decoder_rows.norm(dim=1) - 1).abs().max()
        if self.constraint.unit_norm is not None and off > NORM_TOLERANCE:
            raise SaemakeError(
                f"{self.name} keeps the decoder's directions at norm 1, and its own are not"
            )

    def own_buffers(self, source: Dictionary) -> set[str]:
        """The buffers that are not taken from an SAE that training begins with. Raises SaemakeError
        where one of them has to be the same and is not."""
        return set()

    def before_step(self, step: int, tokens: int) -> None:
        """Hook: runs before each step. What it does is not replayed."""

    def after_backward(self) -> None:
        """Hook: runs before the optimizer."""

    def after_optimizer(self, step: int, x_BD: Tensor, y_BD: Tensor) -> None:
        """Hook: runs after the optimizer's step and after the constraint."""

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain values."""
        return {
            "dictionary": self.dictionary.state_dict(),
            "optimizer": self.optimizer.state(),
            "tokens_since_fired": self.tokens_since_fired_F,
            "generator": self.generator.get_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        self.dictionary.load_state_dict(state["dictionary"])
        self.optimizer.load_state(state["optimizer"])
        self.tokens_since_fired_F.copy_(state["tokens_since_fired"])
        self.generator.set_state(state["generator"])

    def progress(self) -> dict[str, float]:
        """Quantities that follow a schedule or adapt during training, for training.csv."""
        return {}

    @property
    def restart_steps(self) -> int | None:
        """The learning rate warms up again every so many steps; None: it never does."""
        return None

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step."""
        warmup = self.training.warmup_steps
        if self.restart_steps is not None:
            scale = schedule.restarting_scale(step, warmup, self.restart_steps)
        else:
            scale = schedule.learning_rate_scale(step, self.steps, warmup, self.decay_start)
        return self.training.learning_rate * scale

    def schedule(self, step: int) -> dict[str, float]:
        """The numbers that change from step to step and that `forward` takes from `self.now`: on a
        GPU tensors, so that a step can be replayed."""
        return {}

    def phase(self, step: int, tokens: int) -> Hashable:
        """Steps of one phase do the same operations, so a GPU can replay one for the other. None:
        the step is like no other. `tokens` is the number of activations in a batch. Asked only of a
        class that says `replayed`."""
        return "all"

    def _phase(self, step: int, tokens: int) -> Hashable:
        # A graph cannot hold the LM, which an end-to-end loss runs.
        if self.end_to_end is not None:
            return None
        # Said by the class itself: a subclass may have another `forward`.
        return self.phase(step, tokens) if type(self).__dict__.get("replayed") else None

    def update(
        self,
        step: int,
        x_BD: Tensor,
        y_BD: Tensor | None = None,
        end_to_end: Callable[[Tensor], Tensor] | None = None,
    ) -> Forward:
        """Run one training step on a normalised batch [B, D] and its target (None: the batch
        itself): forward, backward, Adam, with the constraint applied in between. On a GPU the
        result is valid until the next step of any SAE: their graphs share memory.

        `end_to_end` is needed where `training.loss` is no squared error. It is a function of the
        reconstruction, which keeps its gradient; batches may then have fewer tokens than
        `training.batch_tokens`.
        """
        assert (end_to_end is None) == (self.training.loss == "mse")
        self.end_to_end = end_to_end
        y_BD = x_BD if y_BD is None else y_BD
        if step == 0:
            if self.drawn:
                self.start(x_BD, y_BD)
            self.optimizer.weights_changed()
        self.before_step(step, len(x_BD))
        numbers = self.optimizer.numbers(self.learning_rate(step))
        self.now = self.numbers.set(numbers, self.schedule(step))
        forward = self.replays.run(
            self._phase(step, len(x_BD)),
            x_BD,
            y_BD,
            lambda x_BD, y_BD: self._compute(step, x_BD, y_BD),
        )
        self.after_optimizer(step, x_BD, y_BD)
        return forward

    def _compute(self, step: int, x_BD: Tensor, y_BD: Tensor) -> Forward:
        self.optimizer.before_forward(self.dictionary)
        forward = self.forward(x_BD, y_BD, step)
        forward.loss.backward()
        self.after_backward()
        self.optimizer.step(self.now)
        return forward.detached()

    def moments(self, parameter: Tensor) -> list[Tensor]:
        """Adam's two moments of a parameter, each in the parameter's shape."""
        return self.optimizer.moments(parameter)

    def finished(self, scale: float, target_scale: float | None = None) -> Dictionary:
        """A copy of the dictionary for raw activations, which training divides by `scale`, and
        targets by `target_scale` (None: the same). The copy is constrained as the next forward pass
        would see it. Training is not affected."""
        copies = (self.dictionary.encoder_copy, self.dictionary.decoder_copy)
        dictionary = copy.deepcopy(self.dictionary, {id(each): None for each in copies})
        self.optimizer.before_forward(dictionary)
        dictionary.unscale(scale, scale if target_scale is None else target_scale)
        return dictionary

    def count_fired(self, fired_F: Tensor, places: Places) -> None:
        """Update `tokens_since_fired_F`: set it to 0 for latents that fired (bool [F]), and add the
        batch's number of tokens for the others."""
        self.tokens_since_fired_F += places.tokens
        self.tokens_since_fired_F.masked_fill_(fired_F, 0)

    @property
    def decay_start(self) -> int:
        """The first step of the learning rate's decay; `steps` if there is no decay."""
        return int(self.training.decay_start_fraction * self.steps)

    def trainer_config(self) -> dict[str, Any]:
        """The `trainer` section of config.json, with the keys of dictionary_learning's trainers."""
        prefix = TRANSCODER if self.is_transcoder else ""
        return {
            "trainer_class": prefix + self.trainer_class,
            "dict_class": prefix + self.dict_class,
            "recipe": self.training.recipe,
            "activation_dim": self.d_model,
            "dict_size": self.width,
            "lr": self.training.learning_rate,
            "adam_betas": list(self.adam_betas),
            "autocast_dtype": self.training.autocast,
            **({} if self.training.loss == "mse" else {"loss": self.training.loss}),
            "steps": self.steps,
            "warmup_steps": self.training.warmup_steps,
            "decay_start": self.decay_start if self.decay_start < self.steps else None,
            "seed": self.training.seed,
            **self.recipe_entries(),
            **({"transcoder": True, "skip": self.with_skip} if self.is_transcoder else {}),
        }


def _other_weights(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """How the names or shapes of an SAE's weights differ from those that are given; None if they do
    not."""
    if set(own) != set(given):
        return f"its weights are {', '.join(given)}, not {', '.join(own)}"
    for name, tensor in own.items():
        if tensor.shape != given[name].shape:
            return f"its {name} has the shape {[*given[name].shape]}, not {[*tensor.shape]}"
    return None
