"""BatchTopK: dictionary and training step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saemake.architectures import losses
from saemake.architectures.batch_top_k import BatchTopK
from saemake.architectures.choosing import largest, top_of_batch
from saemake.architectures.encoding import Encoding
from saemake.architectures.places import Places
from saemake.architectures.top_k import trainer as top_k
from saemake.architectures.trainer import Dictionary


class KeptOfBatch(top_k.KeptDictionary):
    """Keeps what exceeds the threshold, or, by top-k, the largest of the batch that `encode` is
    given."""

    inference = "threshold"

    @property
    def tokens_apart(self) -> bool:
        return self.inference == "threshold"

    def keep_top(self, activations: Tensor) -> Tensor:
        """The k latents a token, on average, that are largest in all of the batch [..., F]; the
        others 0."""
        flat = activations.flatten()
        indices = largest(flat, self.kept * (len(flat) // activations.shape[-1]))
        return torch.zeros_like(flat).scatter_(0, indices, flat[indices]).view_as(activations)


class BatchTopKDictionary(KeptOfBatch, top_k.TopKDictionary):
    """TopK's parameters and buffers."""


class Trainer(BatchTopK, top_k.Trainer):
    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return BatchTopKDictionary(config["activation_dim"], config["dict_size"], config["k"])

    def choose(self, encoding: Encoding) -> tuple[Places, Tensor]:
        return top_of_batch(encoding, self.dictionary.kept * encoding.shape[0])

    def fired(self, f_P: Tensor, places: Places) -> Tensor:
        """The latents (bool [F]) that are active."""
        return places.count(f_P != 0) > 0

    def smallest(self, f_P: Tensor, places: Places) -> Tensor:
        """The size of the smallest active latent of the batch, 0 where there is none; float32
        scalar."""
        smallest = f_P.float().abs().masked_fill(f_P == 0, torch.inf).min()
        return smallest.where(smallest.isfinite(), 0)

    def dead(self) -> Tensor:
        """Latents (bool [F]) that have not fired for `dead_after_tokens`, in either recipe."""
        return self.tokens_since_fired_F >= self.settings.dead_after_tokens

    def january_auxk(self, x_hat_BD: Tensor, x_BD: Tensor, dead: int) -> Tensor:
        """AuxK of January 2025, which as TopK's finds no dead latent, and reconstructs nothing."""
        return losses.auxk_mean_squared(torch.zeros_like(x_hat_BD), x_hat_BD, x_BD)
