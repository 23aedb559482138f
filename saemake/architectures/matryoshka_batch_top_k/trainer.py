"""Matryoshka BatchTopK: dictionary and loss.

Shapes: B activations in a batch, D the model's width, F latents, G latents of a group, N dead
latents, P places (see places.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures import constraints
from saemake.architectures.choosing import top_positive_of_batch
from saemake.architectures.dictionary import Dictionary, latents_together
from saemake.architectures.encoding import Encoding
from saemake.architectures.matryoshka_batch_top_k import MatryoshkaBatchTopK, MatryoshkaSettings
from saemake.architectures.top_k_family import (
    KeptDictionary,
    TopKFamilyTrainer,
    keep_top_of_batch,
    smallest_of_batch,
)
from saemake.architectures.trainer import Forward
from saemake.base.errors import SaemakeError
from saemake.base.onednn import linear


class MatryoshkaDictionary(KeptDictionary):
    """Parameters W_enc [D, F], b_enc [F], W_dec [F, D], b_dec [D]. Buffers k, threshold and
    group_sizes [groups] (int64)."""

    d_model_dim = 1
    inference = "threshold"

    def __init__(self, d_model: int, width: int, k: int, group_sizes: list[int]) -> None:
        super().__init__(d_model, width, k)
        self.register_buffer("group_sizes", torch.tensor(group_sizes))
        self.sizes = group_sizes
        self.W_enc = latents_together(d_model, width)
        self.b_enc = nn.Parameter(torch.zeros(width))
        self.W_dec = nn.Parameter(torch.empty(width, d_model))
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @property
    def tokens_apart(self) -> bool:
        return self.inference == "threshold"

    @property
    def encoder_weight(self) -> Tensor:
        return self.W_enc.T

    @property
    def decoder_weight(self) -> Tensor:
        return self.W_dec

    @property
    def biases(self) -> tuple[nn.Parameter, nn.Parameter]:
        return self.b_enc, self.b_dec

    def every_latent(self, x: Tensor) -> Tensor:
        return torch.relu(linear(self.shifted(x), self.encoder_weight, None) + self.b_enc)

    def decode_unbiased(self, f: Tensor) -> Tensor:
        return f @ self.W_dec

    def keep_top(self, activations: Tensor) -> Tensor:
        """Keep the k * tokens largest of all that `encode` was given."""
        return keep_top_of_batch(activations, self.kept)


class MatryoshkaBatchTopKTrainer(MatryoshkaBatchTopK, TopKFamilyTrainer):
    replayed = True

    settings: MatryoshkaSettings
    dictionary: MatryoshkaDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return MatryoshkaDictionary(
            config["activation_dim"], config["dict_size"], config["k"], config["group_sizes"]
        )

    def own_buffers(self, source: Dictionary) -> set[str]:
        assert isinstance(source, MatryoshkaDictionary)
        if source.sizes != self.dictionary.sizes:
            raise SaemakeError(
                f"its groups have {source.sizes} latents, not {self.dictionary.sizes}: set"
                " architectures.matryoshka_batch_top_k.group_fractions as they were"
            )
        return super().own_buffers(source)

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw decoder rows uniformly and give them unit norm; the encoder is the decoder
        transposed."""
        decoder_FD = self.dictionary.W_dec
        decoder_FD.uniform_(-1, 1, generator=self.generator)
        constraints.normalise_(decoder_FD, 1, epsilon=torch.finfo(decoder_FD.dtype).eps)
        self.dictionary.W_enc.copy_(decoder_FD.T)

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        """The loss is the mean over the groups of each prefix's weighted reconstruction loss. A
        prefix is a group with all groups before it. `parts` has the unweighted losses of the whole
        dictionary and of the first group."""
        dictionary = self.dictionary
        encoding = Encoding(
            x_BD,
            dictionary.encoder_weight,
            dictionary.b_enc,
            dictionary.shift,
            self.dtype,
            dictionary.encoder_copy,
        )
        places, f_P = top_positive_of_batch(encoding, dictionary.kept * len(x_BD))
        if step > self.settings.threshold_start_step:
            self.update_threshold(smallest_of_batch(f_P.detach(), places))
        self.count_fired(places.active(f_P), places)

        x_hat_BD = self.base(x_BD)
        errors = []
        groups = places.split(f_P, dictionary.sizes)
        decoders = dictionary.W_dec.split(dictionary.sizes)
        copies: Sequence[Tensor | None] = [None] * len(decoders)
        if dictionary.decoder_copy is not None:
            copies = dictionary.decoder_copy.split(dictionary.sizes)
        for (group_places, group_f_P), decoder_GD, copy_GD in zip(
            groups, decoders, copies, strict=True
        ):
            x_hat_BD = x_hat_BD + group_places.decode(group_f_P, decoder_GD, copy_GD)
            errors.append(self.error(y_BD, x_hat_BD))
        weights = self.settings.weights(self.training.recipe)
        weighted = [error * weight for error, weight in zip(errors, weights, strict=True)]
        loss = torch.stack(weighted).mean()
        name = self.error_name
        parts = {name: errors[-1].detach(), f"first_group_{name}": errors[0].detach()}

        if self.auxk_is_due(step, len(x_BD)):
            auxk = self.auxk(x_BD, y_BD, x_hat_BD)
            loss = loss + self.settings.auxk_alpha * auxk
            parts["auxk"] = auxk.detach()
        return Forward(loss, parts, f_P, places, x_hat_BD)

    def recipe_entries(self) -> dict[str, Any]:
        return {
            **super().recipe_entries(),
            "group_fractions": self.settings.group_fractions,
            "group_weights": self.settings.weights(self.training.recipe),
            "group_sizes": self.settings.sizes(self.width),
        }
