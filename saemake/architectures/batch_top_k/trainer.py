"""BatchTopK: dictionary and loss.

Shapes: B activations in a batch, D the model's width, F latents, N dead latents, P places (see
places.py).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from saemake.architectures import constraints
from saemake.architectures.batch_top_k import BatchTopK
from saemake.architectures.choosing import top_positive_of_batch
from saemake.architectures.dictionary import Dictionary
from saemake.architectures.top_k_family import (
    LayeredKeptDictionary,
    TopKFamilyTrainer,
    keep_top_of_batch,
    smallest_of_batch,
)
from saemake.architectures.trainer import Forward


class BatchTopKDictionary(LayeredKeptDictionary):
    """Parameters encoder.weight [F, D], encoder.bias [F], decoder.weight [D, F], b_dec [D]."""

    inference = "threshold"

    @property
    def tokens_apart(self) -> bool:
        return self.inference == "threshold"

    def keep_top(self, activations: Tensor) -> Tensor:
        """Keep the k * tokens largest of all that `encode` was given."""
        return keep_top_of_batch(activations, self.kept)


class BatchTopKTrainer(BatchTopK, TopKFamilyTrainer):
    replayed = True

    dictionary: BatchTopKDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return BatchTopKDictionary(config["activation_dim"], config["dict_size"], config["k"])

    def initialise(self) -> None:
        constraints.draw_unit_columns(self.dictionary, self.generator)

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        dictionary = self.dictionary
        places, f_P = top_positive_of_batch(self.encoding(x_BD), dictionary.kept * len(x_BD))
        if step > self.settings.threshold_start_step:
            self.update_threshold(smallest_of_batch(f_P.detach(), places))
        self.count_fired(places.active(f_P), places)

        x_hat_BD = places.decode(f_P, dictionary.decoder_rows, dictionary.decoder_copy)
        x_hat_BD = x_hat_BD + self.base(x_BD)
        loss = error = self.error(y_BD, x_hat_BD)
        parts = {self.error_name: error.detach()}
        if self.auxk_is_due(step, len(x_BD)):
            auxk = self.auxk(x_BD, y_BD, x_hat_BD)
            loss = error + self.settings.auxk_alpha * auxk
            parts["auxk"] = auxk.detach()
        return Forward(loss, parts, f_P, places, x_hat_BD)
