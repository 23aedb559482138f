"""BatchTopK: the k * B largest activations of a batch (https://arxiv.org/abs/2412.06410); at
inference a threshold.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saemake.architectures import losses, register
from saemake.architectures.base import Dictionary
from saemake.architectures.top_k import TopK, TopKDictionary


def keep_top_of_batch(activations: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k latents a token, on average, that are largest in all of the batch [..., F]; the others
    0. Also their values [k * B]."""
    flat = activations.flatten()
    values, indices = flat.topk(k * (len(flat) // activations.shape[-1]), sorted=False)
    return torch.zeros_like(flat).scatter(0, indices, values).view_as(activations), values


class BatchTopKDictionary(TopKDictionary):
    """TopK's parameters and buffers; keeps what exceeds the threshold, or, by top-k, the largest of
    the batch that `encode` is given."""

    inference = "threshold"

    def keep_top(self, activations: Tensor) -> Tensor:
        return keep_top_of_batch(activations, self.kept)[0]


@register
class BatchTopK(TopK):
    name = "batch_top_k"
    version = 2
    trainer_class = "BatchTopKTrainer"
    dict_class = "BatchTopKSAE"
    inferences = ("threshold", "top_k")

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return BatchTopKDictionary(config["activation_dim"], config["dict_size"], config["k"])

    @classmethod
    def target_l0(cls, sparsity: float) -> float | None:
        return sparsity

    def select(self, activations_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents kept [B, F], which of them fired [F], the smallest active one of the batch."""
        f_BF, values = keep_top_of_batch(activations_BF, self.dictionary.kept)
        with torch.no_grad():
            fired_F = (f_BF > 0).any(dim=0)
            smallest = values.float().masked_fill(values <= 0, torch.inf).min()
            smallest = smallest.where(smallest.isfinite(), 0)
        return f_BF, fired_F, smallest

    def dead(self) -> Tensor:
        """Latents (bool [F]) that have not fired for `dead_after_tokens`, in either recipe."""
        return self.tokens_since_fired_F >= self.settings.dead_after_tokens

    def january_auxk(self, aux_BF: Tensor, x_hat_BD: Tensor, x_BD: Tensor, dead: int) -> Tensor:
        """AuxK of January 2025, on the dead latents among those that the batch's top-k kept."""
        x_hat_aux_BD = self.dictionary.decode_unbiased(aux_BF)
        return losses.auxk_mean_squared(x_hat_aux_BD, x_hat_BD, x_BD)
