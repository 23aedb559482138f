"""Matryoshka BatchTopK: nested dictionaries, of which each prefix of latents must reconstruct by
itself (https://arxiv.org/abs/2503.17547); the latents are chosen as BatchTopK's.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from saemake.architectures import constraints, losses, register
from saemake.architectures.base import Dictionary, latents_together
from saemake.architectures.batch_top_k import BatchTopK, keep_top_of_batch
from saemake.architectures.places import Places
from saemake.architectures.top_k import KeptDictionary, TopKSettings
from saemake.sections import Number

Share = Annotated[Number, Field(gt=0)]


class MatryoshkaSettings(TopKSettings):
    """`group_fractions` of the width, the last group taking what rounding leaves. `group_weights`
    None is the recipe's own: the fractions in January 2025, equal weights in release 0.1.0."""

    group_fractions: list[Share] = Field(min_length=1)
    group_weights: list[Share] | Literal["fractions", "uniform"] | None = None

    @field_validator("group_fractions")
    @classmethod
    def _sum_to_one(cls, fractions: list[float]) -> list[float]:
        total = sum(fractions)
        if not math.isclose(total, 1.0):
            terms = " + ".join(f"{fraction:g}" for fraction in fractions)
            raise ValueError(f"must sum to 1, not {terms} = {total:g}")
        return fractions

    @field_validator("group_weights")
    @classmethod
    def _one_a_group(cls, weights: Any, others: ValidationInfo) -> Any:
        groups = len(others.data.get("group_fractions", []))
        if isinstance(weights, list) and groups and len(weights) != groups:
            raise ValueError(
                f"{len(weights)} weights, but group_fractions has {groups}; give one a group"
            )
        return weights

    def latents_needed(self) -> dict[str, int]:
        return {
            **super().latents_needed(),
            "group_fractions": math.ceil(1 / min(self.group_fractions)),
        }

    def sizes(self, width: int) -> list[int]:
        """Latents in each group, as dictionary_learning rounds them."""
        sizes = [int(fraction * width) for fraction in self.group_fractions[:-1]]
        return [*sizes, width - sum(sizes)]

    def weights(self, recipe: str) -> list[float]:
        """The weight of each group's loss."""
        if isinstance(self.group_weights, list):
            return self.group_weights
        chosen = self.group_weights or ("fractions" if recipe == "saebench" else "uniform")
        groups = len(self.group_fractions)
        return self.group_fractions if chosen == "fractions" else [1 / groups] * groups


class MatryoshkaDictionary(KeptDictionary):
    """Parameters W_enc [D, F], b_enc [F], W_dec [F, D], b_dec [D]; besides k and threshold a buffer
    group_sizes [groups] (int64)."""

    inference = "threshold"
    d_model_dim = 1

    def __init__(self, d_model: int, width: int, k: int, group_sizes: list[int]) -> None:
        super().__init__(d_model, width, k)
        self.register_buffer("group_sizes", torch.tensor(group_sizes))
        self.sizes = group_sizes
        self.W_enc = latents_together(d_model, width)
        self.b_enc = nn.Parameter(torch.zeros(width))
        self.W_dec = nn.Parameter(torch.empty(width, d_model))
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @property
    def encoder_weight(self) -> Tensor:
        return self.W_enc.T

    @property
    def decoder_weight(self) -> Tensor:
        return self.W_dec

    @property
    def biases(self) -> tuple[nn.Parameter, nn.Parameter]:
        return self.b_enc, self.b_dec

    def activations(self, x: Tensor) -> Tensor:
        return torch.relu((x - self.b_dec) @ self.W_enc + self.b_enc)

    def decode_unbiased(self, f: Tensor) -> Tensor:
        return f @ self.W_dec

    def keep_top(self, activations: Tensor) -> Tensor:
        return keep_top_of_batch(activations, self.kept)


@register
class MatryoshkaBatchTopK(BatchTopK):
    name = "matryoshka_batch_top_k"
    version = 2
    trainer_class = "MatryoshkaBatchTopKTrainer"
    dict_class = "MatryoshkaBatchTopKSAE"
    live_latents = 5.5
    Settings = MatryoshkaSettings

    settings: MatryoshkaSettings
    dictionary: MatryoshkaDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return MatryoshkaDictionary(
            config["activation_dim"], config["dict_size"], config["k"], config["group_sizes"]
        )

    @torch.no_grad()
    def initialise(self) -> None:
        """Decoder rows of uniform draws, unit norm; the encoder is the decoder transposed."""
        decoder_FD = self.dictionary.W_dec
        decoder_FD.uniform_(-1, 1, generator=self.generator)
        constraints.normalise_(decoder_FD, 1, epsilon=torch.finfo(decoder_FD.dtype).eps)
        self.dictionary.W_enc.copy_(decoder_FD.T)

    def reconstruct(
        self, x_BD: Tensor, f_P: Tensor, places: Places
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The mean over the groups of the weighted loss of each prefix, the whole reconstruction
        [B, D], and the unweighted losses of the whole and of the first group."""
        sizes = self.dictionary.sizes
        x_hat_BD: Tensor = self.dictionary.b_dec
        group_l2 = []
        decoders = self.dictionary.W_dec.split(sizes)
        for (group, group_P), decoder_GD in zip(places.split(f_P, sizes), decoders, strict=True):
            x_hat_BD = x_hat_BD + group.decode(group_P, decoder_GD)
            group_l2.append(losses.reconstruction(x_BD, x_hat_BD))
        weights = self.settings.weights(self.training.recipe)
        weighted = [l2 * weight for l2, weight in zip(group_l2, weights, strict=True)]
        parts = {"l2": group_l2[-1].detach(), "first_group_l2": group_l2[0].detach()}
        return torch.stack(weighted).mean(), x_hat_BD, parts

    def recipe_entries(self) -> dict[str, Any]:
        return {
            **super().recipe_entries(),
            "group_fractions": self.settings.group_fractions,
            "group_weights": self.settings.weights(self.training.recipe),
            "group_sizes": self.settings.sizes(self.width),
        }
