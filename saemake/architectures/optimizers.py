"""How a training step changes the weights: Adam with a constraint, by torch, or in few passes over
the memory by Triton's kernels on a GPU.

Shapes: D the model's width, F latents, R rows of a parameter.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from saemake import kernels
from saemake.architectures.constraints import Constraint
from saemake.architectures.dictionary import Dictionary, rows_like

EPSILON = 1e-8
MOST_NORM = 1.0  # the joint norm that gradients are clipped to
# Numbers of a row into which a vector of parameters is cut.
VECTOR_ROW = 1024


class Optimizer(Protocol):
    """Adam with a constraint."""

    def numbers(self, learning_rate: float) -> dict[str, float]:
        """The numbers of the next step, which the caller hands to `step`."""

    def before_forward(self, dictionary: Dictionary) -> None:
        """Constrain the weights that the next forward pass uses, of the dictionary or a copy."""

    def step(self, now: Mapping[str, Any]) -> None:
        """Change the weights by their gradients, and drop the gradients."""

    def weights_changed(self) -> None:
        """To be called after something else changed the weights."""

    def moments(self, parameter: Tensor) -> list[Tensor]:
        """Adam's two moments of a parameter, each in the parameter's shape."""

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a result of `state`."""


class TorchAdam:
    """By torch."""

    def __init__(
        self,
        dictionary: Dictionary,
        constraint: Constraint,
        learning_rate: float,
        betas: tuple[float, float],
    ) -> None:
        self.dictionary, self.constraint = dictionary, constraint
        # Adam copies gradients that are not contiguous. So it sees those parameters transposed.
        self.leaves: dict[Tensor, Tensor] = {
            parameter: parameter if parameter.is_contiguous() else nn.Parameter(parameter.data.T)
            for parameter in dictionary.parameters()
        }
        self.adam = torch.optim.Adam(
            self.leaves.values(), lr=learning_rate, betas=betas, eps=EPSILON, fused=True
        )

    def numbers(self, learning_rate: float) -> dict[str, float]:
        return {"learning_rate": learning_rate}

    def before_forward(self, dictionary: Dictionary) -> None:
        self.constraint.before_forward(dictionary)

    def step(self, now: Mapping[str, Any]) -> None:
        self.constraint.before_optimizer(self.dictionary)
        for group in self.adam.param_groups:
            group["lr"] = now["learning_rate"]
        for parameter, leaf in self.leaves.items():
            assert parameter.grad is not None
            leaf.grad = parameter.grad if leaf is parameter else parameter.grad.T
        self.adam.step()
        self.adam.zero_grad()
        self.dictionary.zero_grad()
        self.constraint.after_optimizer(self.dictionary)

    def weights_changed(self) -> None:
        pass

    def moments(self, parameter: Tensor) -> list[Tensor]:
        leaf = self.leaves[parameter]
        state = self.adam.state[leaf]
        moments = [state["exp_avg"], state["exp_avg_sq"]]
        return moments if leaf is parameter else [moment.T for moment in moments]

    def state(self) -> dict[str, Any]:
        return self.adam.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state)


class RowAdam:
    """By Triton's kernels, row after row. Weights are constrained at the end of a step, also where
    the constraint says before the next forward pass. Where training computes in bfloat16, the
    dictionary gets a copy of both matrices in it, which each step renews."""

    def __init__(
        self,
        dictionary: Dictionary,
        constraint: Constraint,
        betas: tuple[float, float],
        dtype: torch.dtype,
    ) -> None:
        from saemake.kernels import adam  # it needs Triton

        self.kernels = adam
        self.dictionary, self.constraint, self.betas = dictionary, constraint, betas
        self.steps = 0
        # Decoder rows times these coefficients [F] are part of the next step's gradient.
        self.pull_F: Tensor | None = None
        self.rows: dict[Tensor, Tensor] = {p: _rows(p, p) for p in dictionary.parameters()}
        self.of_rows = {
            p: (torch.zeros_like(rows), torch.zeros_like(rows)) for p, rows in self.rows.items()
        }
        sizes = [len(rows) for rows in self.rows.values()]
        device = dictionary.decoder_weight.device
        self.squares = torch.zeros(sum(sizes), dtype=torch.float32, device=device)
        self.squares_of = dict(zip(self.rows, self.squares.split(sizes), strict=True))
        if dtype != torch.float32:
            dictionary.encoder_copy = torch.empty_like(dictionary.encoder_weight, dtype=dtype)
            dictionary.decoder_copy = torch.empty_like(dictionary.decoder_rows, dtype=dtype)
        self.weights_changed()

    def numbers(self, learning_rate: float) -> dict[str, float]:
        self.steps += 1
        first, second = (1 - beta**self.steps for beta in self.betas)
        return {"learning_rate": learning_rate, "correction1": first, "correction2": second}

    def before_forward(self, dictionary: Dictionary) -> None:
        pass

    @torch.no_grad()
    def weights_changed(self) -> None:
        if self.constraint.unit_norm == "before_forward":
            self.constraint.normalise_(self.dictionary)
        self._renew_copies()

    @torch.no_grad()
    def _renew_copies(self) -> None:
        for copy_FD, weight_FD in (
            (self.dictionary.encoder_copy, self.dictionary.encoder_weight),
            (self.dictionary.decoder_copy, self.dictionary.decoder_rows),
        ):
            if copy_FD is not None:
                copy_FD.copy_(weight_FD)

    def rule(self, parameter: Tensor) -> Any:
        """How the kernels change a parameter."""
        constraint = self.constraint
        if parameter is not self.dictionary.decoder_weight:
            return self.kernels.Rule()
        along = constraint.along_epsilon
        return self.kernels.Rule(
            along_epsilon=None if not constraint.projects else -1.0 if along is None else along,
            clipped_first=constraint.clips != "last",
            norm_epsilon=constraint.norm_epsilon if constraint.unit_norm else None,
        )

    def copy_of(self, parameter: Tensor) -> Tensor | None:
        """The parameter's copy in the dtype of training."""
        dictionary = self.dictionary
        if parameter is dictionary.decoder_weight:
            return dictionary.decoder_copy
        return dictionary.encoder_copy if parameter is dictionary.encoder_parameter else None

    @torch.no_grad()
    def step(self, now: Mapping[str, Any]) -> None:
        numbers = now["optimizer"]
        clips = self.constraint.clips is not None
        gradients: dict[Tensor, Tensor] = {}
        along: dict[Tensor, Tensor | None] = {}
        for parameter, rows in self.rows.items():
            assert parameter.grad is not None
            gradients[parameter] = gradient = _rows(parameter, parameter.grad)
            rule = self.rule(parameter)
            along[parameter] = None
            if clips or rule.along_epsilon is not None:
                squares = self.squares_of[parameter]
                along[parameter] = self.kernels.measure(
                    rows, gradient, rule, squares, self.pull_of(parameter)
                )
        clip = None
        if clips:
            # As torch.nn.utils.clip_grad_norm_.
            clip = (MOST_NORM / (self.squares.sum().sqrt() + 1e-6)).clamp(max=1.0)
        for parameter, rows in self.rows.items():
            self.kernels.update_(
                rows,
                gradients[parameter],
                self.of_rows[parameter],
                self.rule(parameter),
                along[parameter],
                clip,
                numbers,
                self.betas,
                EPSILON,
                self.copy_of(parameter),
                self.pull_of(parameter),
            )
        self.pull_F = None
        self.dictionary.zero_grad()

    def pull_of(self, parameter: Tensor) -> Tensor | None:
        return self.pull_F if parameter is self.dictionary.decoder_weight else None

    def moments(self, parameter: Tensor) -> list[Tensor]:
        moments = self.of_rows[parameter]
        if parameter.ndim == 1:
            return [moment.view(-1) for moment in moments]
        return [m if parameter.is_contiguous() else m.T for m in moments]

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "moments": [list(pair) for pair in self.of_rows.values()]}

    def load_state(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for pair, stored in zip(self.of_rows.values(), state["moments"], strict=True):
            for moment, value in zip(pair, stored, strict=True):
                moment.copy_(value)
        self._renew_copies()


def _rows(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A tensor in the parameter's shape as a contiguous matrix: [F, D], or a vector cut into
    rows."""
    if tensor.ndim == 1:
        return tensor.detach().contiguous().view(-1, math.gcd(len(tensor), VECTOR_ROW))
    return rows_like(parameter, tensor)


def optimizer_of(
    dictionary: Dictionary,
    constraint: Constraint,
    learning_rate: float,
    betas: tuple[float, float],
    dtype: torch.dtype,
) -> Optimizer:
    """By kernels where they run and know the dictionary's shape, else by torch."""
    if kernels.used_on(dictionary.decoder_weight.device) and _has_rows(dictionary):
        return RowAdam(dictionary, constraint, betas, dtype)
    return TorchAdam(dictionary, constraint, learning_rate, betas)


def _has_rows(dictionary: Dictionary) -> bool:
    """Whether the parameters are vectors and matrices, two of which are encoder and decoder, and
    their rows can be told from their columns."""
    start = dictionary.encoder_weight.data_ptr()
    encoders = [each for each in dictionary.parameters() if each.data_ptr() == start]
    return (
        len(encoders) == 1
        and encoders[0] is not dictionary.decoder_weight
        and min(encoders[0].shape) > 1
        and all(each.ndim in (1, 2) for each in dictionary.parameters())
    )
