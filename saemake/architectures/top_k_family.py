"""What `top_k`, `batch_top_k` and `matryoshka_batch_top_k` share: the two ways to choose latents at
inference, the running threshold, and the AuxK loss on dead latents.

Shapes: B activations in a batch, D the model's width, F latents, N dead latents, P places (see
places.py).
"""

import abc
import math
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from saemake import kernels
from saemake.architectures import constraints, losses, schedule
from saemake.architectures.choosing import largest, top_positive_of_each
from saemake.architectures.constraints import Constraint
from saemake.architectures.dead_latents import DeadLatentsTrainer
from saemake.architectures.dictionary import Dictionary, LayeredDictionary, rows_like
from saemake.architectures.encoding import Encoding
from saemake.architectures.places import Places
from saemake.architectures.top_k_settings import TopKSettings
from saemake.base.onednn import linear

# With kernels, the device is asked so seldom how many latents are dead, and at least so many
# latents are looked at.
SOON, LEAST_DEAD = 100, 256


class KeptDictionary(Dictionary):
    """A dictionary that keeps the largest latents. Buffers: k (int32) and threshold (float32, -1
    until training estimates it). `inference` is "top_k" or "threshold"."""

    k: Tensor
    threshold: Tensor

    def __init__(self, d_model: int, width: int, k: int) -> None:
        super().__init__()
        self.d_model, self.width = d_model, width
        self.register_buffer("k", torch.tensor(k, dtype=torch.int32))
        self.register_buffer("threshold", torch.tensor(-1.0))
        # A Python copy of k. Reading the buffer in a step would wait for the device.
        self.kept = k

    @property
    @abc.abstractmethod
    def biases(self) -> tuple[nn.Parameter, nn.Parameter]:
        """The encoder's bias [F] and the decoder's bias [D]."""

    @property
    def encoder_bias(self) -> Tensor:
        return self.biases[0]

    @property
    def output_bias(self) -> nn.Parameter:
        return self.biases[1]

    @abc.abstractmethod
    def every_latent(self, x: Tensor) -> Tensor:
        """All latents [..., F] before any is dropped, float32."""

    @abc.abstractmethod
    def decode_unbiased(self, f: Tensor) -> Tensor:
        """Latents [..., F] to reconstructions [..., D] without the decoder's bias."""

    @abc.abstractmethod
    def keep_top(self, activations: Tensor) -> Tensor:
        """Set all but the largest of the activations [..., F] to 0, as k says."""

    def set_k(self, k: int) -> None:
        """Set k, in the buffer and in its Python copy."""
        self.kept = k
        self.k.fill_(k)

    def encode(self, x: Tensor) -> Tensor:
        f = self.every_latent(x)
        return f * (f > self.threshold) if self.inference == "threshold" else self.keep_top(f)

    def decode(self, f: Tensor) -> Tensor:
        return self.decode_unbiased(f) + self.biases[1]

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            for bias in self.biases:
                bias.mul_(scale)
            self.threshold.mul_(torch.where(self.threshold >= 0, scale, 1.0))


class LayeredKeptDictionary(LayeredDictionary, KeptDictionary):
    """Parameters encoder.weight [F, D], encoder.bias [F], decoder.weight [D, F], b_dec [D]."""

    def __init__(self, d_model: int, width: int, k: int) -> None:
        super().__init__(d_model, width, k)
        self.add_layers()
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @property
    def biases(self) -> tuple[nn.Parameter, nn.Parameter]:
        return self.encoder.bias, self.b_dec

    def every_latent(self, x: Tensor) -> Tensor:
        return torch.relu_(linear(self.shifted(x), self.encoder.weight, self.encoder.bias))

    def decode_unbiased(self, f: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(f)
        return decoded


class TopKFamilyTrainer(DeadLatentsTrainer):
    """The parts of a training step that the three architectures share. Each `forward` calls them by
    name, in the order in which they happen."""

    settings: TopKSettings
    dictionary: KeptDictionary

    @property
    def constraint(self) -> Constraint:
        return (
            constraints.FREE if self.is_transcoder else constraints.OF_RECIPE[self.training.recipe]
        )

    def own_buffers(self, source: Dictionary) -> set[str]:
        """k; and where the source keeps another number of latents, or chooses them in another way,
        the threshold, which is then estimated anew."""
        assert isinstance(source, KeptDictionary)
        same = type(source) is type(self.dictionary) and source.kept == int(self.sparsity_value)
        return {"k"} if same else {"k", "threshold"}

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        device = self.tokens_since_fired_F.device
        self.by_kernels = kernels.used_on(device) and self.dtype == torch.bfloat16
        self.most_dead = 0  # with kernels: at least as many latents as are dead
        self.gathered: tuple[Tensor, list[Tensor]] | None = None

    def before_step(self, step: int, tokens: int) -> None:
        """Set the step's k if `k_anneal_steps` asks for a falling k."""
        self.count_soon_dead(step, tokens)
        if self.settings.k_anneal_steps is not None:
            start_k = min(self.d_model, self.width)
            self.dictionary.set_k(
                schedule.annealed_k(
                    step, int(self.sparsity_value), start_k, self.settings.k_anneal_steps
                )
            )

    @torch.no_grad()
    def update_threshold(self, smallest: Tensor) -> None:
        """Move the threshold towards the batch's smallest activation (float32 scalar), as a running
        mean that starts at its first value. The threshold is for inference as a JumpReLU."""
        threshold, beta = self.dictionary.threshold, self.settings.threshold_beta
        running = beta * threshold + (1 - beta) * smallest
        threshold.copy_(torch.where(threshold < 0, smallest, running))

    def auxk(self, x_BD: Tensor, y_BD: Tensor, x_hat_BD: Tensor) -> Tensor:
        """The AuxK loss, given the target and its reconstruction; float32 scalar, 0 if no latent is
        dead. Waits for the device, except with kernels."""
        january = self.training.recipe == "saebench"
        if self.by_kernels:
            dead_F = self.dead()
            if january:
                return self.january_auxk(dead_F.sum(), y_BD, x_hat_BD)
            return self.release_auxk_by_kernels(dead_F, x_BD, y_BD, x_hat_BD)
        dead_N = self.dead().nonzero().squeeze(1)
        if len(dead_N) == 0:
            return x_BD.new_zeros((), dtype=torch.float32)
        if january:
            return self.january_auxk(len(dead_N), y_BD, x_hat_BD)
        return self.release_auxk(dead_N, x_BD, y_BD, x_hat_BD)

    def january_auxk(self, dead: int | Tensor, y_BD: Tensor, x_hat_BD: Tensor) -> Tensor:
        """AuxK of January 2025 with so many dead latents; float32 scalar. It looked for dead
        latents among the latents that it had just kept, and so found none: its auxiliary
        reconstruction is 0."""
        loss = losses.auxk_mean_squared(torch.zeros_like(x_hat_BD), x_hat_BD, y_BD)
        return loss * (dead > 0) if isinstance(dead, Tensor) else loss

    def release_auxk(self, dead_N: Tensor, x_BD: Tensor, y_BD: Tensor, x_hat_BD: Tensor) -> Tensor:
        """AuxK of release 0.1.0 (the auxiliary loss of https://arxiv.org/abs/2406.04093): the D/2
        largest dead latents of each token reconstruct what the SAE missed. `dead_N` has the indices
        of the dead latents; float32 scalar."""
        dictionary = self.dictionary
        encoding = Encoding(
            x_BD,
            dictionary.encoder_weight[dead_N],
            dictionary.biases[0][dead_N],
            dictionary.shift,
            self.dtype,
        )
        places, f_P = top_positive_of_each(encoding, min(self.d_model // 2, len(dead_N)))
        x_hat_aux_BD = places.decode(f_P, dictionary.decoder_rows[dead_N])
        return losses.auxk_over_residual(x_hat_aux_BD, x_hat_BD, y_BD)

    def release_auxk_by_kernels(
        self, dead_F: Tensor, x_BD: Tensor, y_BD: Tensor, x_hat_BD: Tensor
    ) -> Tensor:
        """The same without waiting for the device. The dead latents (bool [F]) come first among
        `most_dead` latents C; the latents behind them take no part."""
        dictionary, dead = self.dictionary, dead_F.sum()
        chosen_C = (~dead_F).to(torch.int8).sort(stable=True).indices[: self.most_dead]
        taken = dead.clamp(max=len(chosen_C))
        limits = torch.stack([taken.clamp(max=self.d_model // 2), taken]).int()
        parameters = (dictionary.encoder_weight, dictionary.biases[0], dictionary.decoder_rows)
        # Leaves of their own: their gradients are added to those of the whole at the end.
        weight_CD, bias_C, rows_CD = leaves = [
            parameter.detach().index_select(0, chosen_C).requires_grad_()
            for parameter in parameters
        ]
        self.gathered = (chosen_C, leaves)
        encoding = Encoding(x_BD, weight_CD, bias_C, dictionary.shift, self.dtype)
        places, f_P = top_positive_of_each(encoding, self.most_dead, limits)
        x_hat_aux_BD = places.decode(f_P, rows_CD, rows_CD.detach().to(self.dtype))
        return losses.auxk_over_residual(x_hat_aux_BD, x_hat_BD, y_BD, dead > 0)

    def after_backward(self) -> None:
        """Add the gradients of the gathered latents."""
        if self.gathered is None:
            return
        from saemake.kernels import masks  # it needs Triton

        chosen_C, leaves = self.gathered
        dictionary, self.gathered = self.dictionary, None
        parameters = (
            dictionary.encoder_parameter,
            dictionary.biases[0],
            dictionary.decoder_weight,
        )
        for parameter, leaf in zip(parameters, leaves, strict=True):
            assert parameter.grad is not None
            assert leaf.grad is not None
            rows = rows_like(parameter, parameter.grad).view(self.width, -1)
            masks.add_rows_(rows, chosen_C, leaf.grad.view(len(chosen_C), -1))

    def count_soon_dead(self, step: int, tokens: int) -> None:
        """Every SOON steps ask the device how many latents can be dead within SOON steps. Waits for
        the device."""
        if not self.by_kernels or self.training.recipe == "saebench":
            return
        if not self.auxk_is_due(step, tokens) or (step % SOON and self.most_dead):
            return
        unfired = self.settings.dead_after_tokens - SOON * tokens
        soon = int((self.tokens_since_fired_F >= unfired).sum())
        # Few different sizes, because a graph is captured for each: powers of 2, and a smaller one
        # only where it is at most a quarter.
        wanted = min(max(2 ** math.ceil(math.log2(max(soon, 1))), LEAST_DEAD), self.width)
        if wanted > self.most_dead or 4 * wanted <= self.most_dead:
            self.most_dead = wanted

    def phase(self, step: int, tokens: int) -> Hashable:
        anneal = self.settings.k_anneal_steps
        if anneal is not None and step <= anneal + 1:
            return None
        due = self.auxk_is_due(step, tokens)
        if due and not self.by_kernels:
            return None
        return step > self.settings.threshold_start_step, due, due and self.most_dead

    def state(self) -> dict[str, Any]:
        return {**super().state(), "most_dead": self.most_dead}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.most_dead = state.get("most_dead", 0)

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "k": int(self.sparsity_value),
            "k_anneal_steps": self.settings.k_anneal_steps,
            "auxk_alpha": self.settings.auxk_alpha,
            "top_k_aux": self.d_model // 2,
            "dead_feature_threshold": self.settings.dead_after_tokens,
            "threshold_beta": self.settings.threshold_beta,
            "threshold_start_step": self.settings.threshold_start_step,
        }


def smallest_of_tokens(f_P: Tensor, places: Places) -> Tensor:
    """The size of each token's smallest active latent, averaged over the tokens that have an active
    latent; float32 scalar, 0 if there is no such token."""
    smallest_B = places.smallest_by_token(f_P)
    has_active_B = smallest_B.isfinite()
    return smallest_B.where(has_active_B, 0).sum() / has_active_B.sum().clamp_min(1)


def smallest_of_batch(f_P: Tensor, places: Places) -> Tensor:
    """The size of the batch's smallest active latent; float32 scalar, 0 if no latent is active."""
    smallest = places.smallest(f_P)
    return smallest.where(smallest.isfinite(), 0)


def keep_top_of_batch(activations: Tensor, k: int) -> Tensor:
    """Set all activations [..., F] to 0 but the k * tokens largest of the whole tensor."""
    flat = activations.flatten()
    indices = largest(flat, k * (len(flat) // activations.shape[-1]))
    return torch.zeros_like(flat).scatter_(0, indices, flat[indices]).view_as(activations)
