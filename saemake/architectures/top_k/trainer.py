"""TopK: dictionary and loss.

Shapes: B activations in a batch, D the model's width, F latents, K kept latents of a token, N dead
latents, P places (see places.py).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saemake.architectures import constraints, losses
from saemake.architectures.choosing import in_all, top_indices, top_positive_of_each
from saemake.architectures.dictionary import Dictionary
from saemake.architectures.top_k import TopK
from saemake.architectures.top_k_family import (
    LayeredKeptDictionary,
    TopKFamilyTrainer,
    smallest_of_tokens,
)
from saemake.architectures.trainer import Forward


class TopKDictionary(LayeredKeptDictionary):
    """Parameters encoder.weight [F, D], encoder.bias [F], decoder.weight [D, F], b_dec [D]."""

    inference = "top_k"

    def listed(self, x_RD: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.inference != "top_k":
            return None
        f_RF = self.every_latent(x_RD)
        indices_RK = top_indices(f_RF, self.kept)
        return in_all(indices_RK, self.width), f_RF.gather(1, indices_RK).flatten()

    def keep_top(self, activations: Tensor) -> Tensor:
        """Keep the k largest of each token."""
        rows_RF = activations.flatten(0, -2) if activations.ndim > 1 else activations[None]
        indices_RK = top_indices(rows_RF, self.kept)
        kept_RF = torch.zeros_like(rows_RF).scatter_(1, indices_RK, rows_RF.gather(1, indices_RK))
        return kept_RF.view_as(activations)


class TopKTrainer(TopK, TopKFamilyTrainer):
    replayed = True

    dictionary: TopKDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return TopKDictionary(config["activation_dim"], config["dict_size"], config["k"])

    def initialise(self) -> None:
        constraints.draw_unit_columns(self.dictionary, self.generator)

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        dictionary = self.dictionary
        places, f_P = top_positive_of_each(self.encoding(x_BD), dictionary.kept)
        if step > self.settings.threshold_start_step:
            self.update_threshold(smallest_of_tokens(f_P.detach(), places))
        # A latent fires if it was kept, even where its value is 0.
        self.count_fired(places.latents(), places)

        x_hat_BD = places.decode(f_P, dictionary.decoder_rows, dictionary.decoder_copy)
        x_hat_BD = x_hat_BD + self.base(x_BD)
        loss = error = self.error(y_BD, x_hat_BD)
        parts = {self.error_name: error.detach()}
        if self.auxk_is_due(step, len(x_BD)):
            auxk = self.auxk(x_BD, y_BD, x_hat_BD)
            loss = error + self.settings.auxk_alpha * auxk
            parts["auxk"] = auxk.detach()
        return Forward(loss, parts, f_P, places, x_hat_BD)

    def january_auxk(self, dead: int | Tensor, y_BD: Tensor, x_hat_BD: Tensor) -> Tensor:
        """Here the auxiliary reconstruction is the decoder's bias. The loss is scaled down if fewer
        than D/2 latents are dead."""
        x_hat_aux_BD = self.dictionary.biases[1].expand_as(x_hat_BD)
        scale = dead / (self.d_model // 2)
        scale = scale.clamp(max=1) if isinstance(scale, Tensor) else min(scale, 1.0)
        return losses.auxk_over_variance(x_hat_aux_BD, x_hat_BD, y_BD, scale)

    def dead(self) -> Tensor:
        """Latents (bool [F]) that have not fired for `dead_after_tokens`. January 2025's TopK
        compared with `>`; its BatchTopK and the release compare with `>=`."""
        if self.training.recipe == "saebench":
            return self.tokens_since_fired_F > self.settings.dead_after_tokens
        return super().dead()
