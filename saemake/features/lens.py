"""The logit lens (nostalgebraist, 2020) of decoder directions: the tokens that a latent promotes
and suppresses if nothing after the layer but the final norm and the unembedding acts on it.

As in TransformerLens, and so in SAEDashboard and Neuronpedia, the scale of the final norm is folded
into the unembedding; a LayerNorm also subtracts the direction's mean; and each direction's logits
are relative to their mean over the vocabulary, which changes no prediction. The norm's division by
the size of the residual stream is left out: it differs from position to position, and does not
change the order.

Shapes: S directions, D the model's width, V the vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saemake.features.ranking import largest
from saemake.llm.model import LanguageModel
from saemake.recipes.features import RANKED_AT_ONCE


@dataclass(frozen=True)
class Lens:
    """The unembedding [V, D], and the final norm in front of it: its scale [D], and whether it
    subtracts the mean (LayerNorm) or not (RMSNorm). `norm` is its class's name. Both tensors are
    where the LM has its unembedding."""

    unembedding_VD: Tensor
    scale_D: Tensor
    centred: bool
    norm: str

    @torch.no_grad()
    def logits(self, directions_SD: Tensor) -> Tensor:
        """Logits [S, V] that one unit of each direction adds, relative to their mean."""
        directions_SD = directions_SD.to(self.scale_D.device).float()
        if self.centred:
            directions_SD = directions_SD - directions_SD.mean(dim=-1, keepdim=True)
        weight_VD = self.unembedding_VD.float()
        logits_SV = (directions_SD * self.scale_D.float()) @ weight_VD.T
        return logits_SV - logits_SV.mean(dim=-1, keepdim=True)

    def extremes(self, directions_SD: Tensor, count: int) -> tuple["Extremes", "Extremes"]:
        """The tokens that each direction promotes most, and those that it suppresses most."""
        promoted, suppressed = [], []
        for part_SD in directions_SD.split(max(RANKED_AT_ONCE // len(self.unembedding_VD), 1)):
            logits_SV = self.logits(part_SD)
            promoted.append(largest(logits_SV, count))
            values_SN, ids_SN = largest(-logits_SV, count)
            suppressed.append((-values_SN, ids_SN))
        return Extremes.together(promoted), Extremes.together(suppressed)


@dataclass(frozen=True)
class Extremes:
    """Tokens and their logits, the most extreme first; [S, N] each, on the CPU."""

    logits: Tensor
    ids: Tensor

    @classmethod
    def together(cls, parts: list[tuple[Tensor, Tensor]]) -> "Extremes":
        """Of parts (logits, ids)."""
        logits, ids = zip(*parts, strict=True)
        return cls(torch.cat(logits).cpu(), torch.cat(ids).cpu())


def lens_of(lm: LanguageModel, vocabulary: int) -> Lens | None:
    """The lens of an LM; `vocabulary` is the number of ids that its tokenizer knows, since models
    pad their unembedding. None if its head is not one linear layer over the residual stream."""
    head = lm.model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if weight is None or weight.layout != torch.strided or weight.shape[-1] != lm.d_model:
        return None
    unembedding_VD = weight[:vocabulary]
    norm = lm.final_norm
    if norm is None:
        return Lens(unembedding_VD, torch.ones(lm.d_model, device=weight.device), False, "no norm")
    scale_D, centred = _scale(norm, lm)
    return Lens(unembedding_VD, scale_D.to(weight.device), centred, type(norm).__name__)


@torch.no_grad()
def _scale(norm: nn.Module, lm: LanguageModel) -> tuple[Tensor, bool]:
    """The scale [D] of a norm, and whether it subtracts the mean.

    An RMSNorm gives its scale for a vector of ones (Gemma's is one more than its weight). A norm
    that subtracts the mean gives only its bias for it.
    """
    ones_D = torch.ones(1, 1, lm.d_model, dtype=lm.dtype, device=lm.device)
    scale_D = ((norm(ones_D) - norm(-ones_D)) / 2).float().flatten()
    if scale_D.any():
        return scale_D, False
    weight = getattr(norm, "weight", None)
    return (torch.ones_like(scale_D) if weight is None else weight.float()), True
