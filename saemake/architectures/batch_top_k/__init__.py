"""BatchTopK: the k * B largest activations of a batch (https://arxiv.org/abs/2412.06410); at
inference a threshold.
"""

from saemake.architectures import register
from saemake.architectures.top_k import TopK


@register
class BatchTopK(TopK):
    name = "batch_top_k"
    version = 6
    trainer_class = "BatchTopKTrainer"
    dict_class = "BatchTopKSAE"
    inferences = ("threshold", "top_k")

    @classmethod
    def target_l0(cls, sparsity: float) -> float | None:
        return sparsity
