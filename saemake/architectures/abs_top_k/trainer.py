"""AbsTopK: dictionary and loss.

Shapes: B activations in a batch, R tokens, D the model's width, F latents, K kept latents of a
token, P places (see places.py).
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saemake.architectures.abs_top_k import AbsTopK
from saemake.architectures.auxk import AuxKTrainer, UntiedDictionary
from saemake.architectures.choosing import top_indices, top_of_each
from saemake.architectures.dictionary import Dictionary
from saemake.architectures.trainer import Forward
from saemake.base.onednn import linear

largest_of_each = functools.partial(top_of_each, measure=torch.abs)


class AbsTopKDictionary(UntiedDictionary):
    """Parameters encoder.weight [F, D], encoder.bias [F], decoder.weight [D, F], b_dec [D]."""

    def chosen(self, x_RD: Tensor) -> tuple[Tensor, Tensor]:
        """The latents of largest size of each token and their values, [R, K] each."""
        f_RF = linear(self.shifted(x_RD), self.encoder.weight, self.encoder.bias)
        indices_RK = top_indices(f_RF.abs(), self.k)
        return indices_RK, f_RF.gather(1, indices_RK)


class AbsTopKTrainer(AbsTopK, AuxKTrainer):
    replayed = True

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return AbsTopKDictionary(config["activation_dim"], config["dict_size"], config["k"])

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        """The reconstruction error, and the AuxK loss in which dead latents too are chosen by size
        and keep their signs."""
        dictionary = self.dictionary
        places, f_P = largest_of_each(self.encoding(x_BD), dictionary.k)
        self.count_fired(places.active(f_P), places)

        x_hat_BD = places.decode(f_P, dictionary.decoder_rows, dictionary.decoder_copy)
        x_hat_BD = x_hat_BD + self.base(x_BD)
        loss = error = self.error(y_BD, x_hat_BD)
        parts = {self.error_name: error.detach()}
        if self.auxk_is_due(step, len(x_BD)):
            auxk = self.auxk(x_BD, y_BD - x_hat_BD, largest_of_each)
            loss = error + self.settings.auxk_alpha * auxk
            parts["auxk"] = auxk.detach()
        return Forward(loss, parts, f_P, places, x_hat_BD)
