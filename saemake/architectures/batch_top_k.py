"""BatchTopK: the k * B largest activations of a batch (https://arxiv.org/abs/2412.06410); at
inference a threshold. Trained as dictionary_learning did in January 2025.
"""

import torch
from torch import Tensor

from saemake.architectures import losses, register
from saemake.architectures.base import Dictionary
from saemake.architectures.top_k import TopK, TopKDictionary


class BatchTopKDictionary(TopKDictionary):
    """TopK's parameters and buffers; keeps what exceeds the threshold."""

    def encode(self, x: Tensor) -> Tensor:
        f = self.activations(x)
        return f * (f > self.threshold)


@register
class BatchTopK(TopK):
    name = "batch_top_k"
    version = 1
    trainer_class = "BatchTopKTrainer"
    dict_class = "BatchTopKSAE"

    @classmethod
    def make_dictionary(cls, d_model: int, width: int, sparsity: float) -> Dictionary:
        return BatchTopKDictionary(d_model, width, int(sparsity))

    def select(self, activations_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents kept [B, F], which of them fired [F], the smallest active one of the batch."""
        flat = activations_BF.flatten()
        kept = self.dictionary.kept * len(activations_BF)
        values, indices = flat.topk(kept, sorted=False)
        f_BF = torch.zeros_like(flat).scatter(0, indices, values).view_as(activations_BF)
        with torch.no_grad():
            fired_F = (f_BF > 0).any(dim=0)
            smallest = values.float().masked_fill(values <= 0, torch.inf).min()
            smallest = smallest.where(smallest.isfinite(), 0)
        return f_BF, fired_F, smallest

    def auxk_loss(
        self, aux_BF: Tensor, x_hat_BD: Tensor, x_BD: Tensor, dead: int, k_aux: int
    ) -> Tensor:
        """AuxK of January 2025: the dead latents among those that the batch's top-k kept."""
        return losses.auxk_mean_squared(self.dictionary.decoder(aux_BF), x_hat_BD, x_BD)
