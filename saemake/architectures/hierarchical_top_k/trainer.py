"""HierarchicalTopK: dictionary and loss.

Shapes: B activations in a batch, R of them in a part, D the model's width, F latents, K kept
latents of a token by rank (the largest first), P places (see places.py).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saemake.architectures import products
from saemake.architectures.auxk import AuxKTrainer, UntiedDictionary
from saemake.architectures.choosing import (
    ranked_positive_of_each,
    top_indices,
    top_positive_of_each,
)
from saemake.architectures.dictionary import Dictionary
from saemake.architectures.hierarchical_top_k import HierarchicalTopK
from saemake.architectures.places import sum_of_rows
from saemake.architectures.trainer import Forward
from saemake.base.onednn import linear


class HierarchicalTopKDictionary(UntiedDictionary):
    """Parameters encoder.weight [F, D], encoder.bias [F], decoder.weight [D, F], b_dec [D].
    `inference` is "k_" and the number of latents that `encode` keeps, at most the SAE's own k."""

    def __init__(self, d_model: int, width: int, k: int) -> None:
        super().__init__(d_model, width, k)
        self.inference = f"k_{k}"

    @property
    def kept(self) -> int:
        """How many latents of a token `encode` keeps."""
        assert self.inference is not None
        return int(self.inference.removeprefix("k_"))

    def chosen(self, x_RD: Tensor) -> tuple[Tensor, Tensor]:
        """The largest latents of each token and their values, [R, kept] each."""
        f_RF = torch.relu_(linear(self.shifted(x_RD), self.encoder.weight, self.encoder.bias))
        indices_RK = top_indices(f_RF, self.kept)
        return indices_RK, f_RF.gather(1, indices_RK)


class HierarchicalTopKTrainer(HierarchicalTopK, AuxKTrainer):
    replayed = True

    dictionary: HierarchicalTopKDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return HierarchicalTopKDictionary(
            config["activation_dim"], config["dict_size"], config["k"]
        )

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        """`parts` has the reconstruction error with all k latents (l2) and the mean over every k up
        to it (nested_l2), which is the loss."""
        dictionary = self.dictionary
        places, f_P, latents_BK, f_BK = ranked_positive_of_each(self.encoding(x_BD), dictionary.k)
        self.count_fired(places.active(f_P), places)

        nested_l2, errors_K, x_hat_BD = NestedError.apply(
            f_BK, dictionary.decoder_rows, dictionary.b_dec, latents_BK, y_BD
        )
        loss = nested_l2
        parts = {"l2": errors_K[-1].detach(), "nested_l2": nested_l2.detach()}
        if self.auxk_is_due(step, len(x_BD)):
            auxk = self.auxk(x_BD, y_BD - x_hat_BD, top_positive_of_each)
            loss = nested_l2 + self.settings.auxk_alpha * auxk
            parts["auxk"] = auxk.detach()
        return Forward(loss, parts, f_P, places, x_hat_BD)


class NestedError(torch.autograd.Function):
    """The mean over k of 1, 2, ..., K of the reconstruction error with the k largest latents of
    each token: squared, summed over D, mean over B; a float32 scalar. And without gradients: the
    error of each k, float32 [K], and the reconstruction with all latents, [B, D].

    A graph of K reconstructions would hold K matrices [B, D]. Here they are made for a part of the
    tokens at a time, and the gradients with them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        f_BK: Tensor,
        rows_FD: Tensor,
        bias_D: Tensor,
        latents_BK: Tensor,
        target_BD: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        tokens, ranks = f_BK.shape
        sums_K = f_BK.new_zeros(ranks)
        f_gradient_BK = torch.empty_like(f_BK)
        rows_gradient_FD = torch.zeros_like(rows_FD)
        bias_gradient_D = torch.zeros_like(bias_D)
        x_hats = []
        for part in products.row_parts(f_BK.shape, rows_FD):
            latents_RK, f_RK1, target_RD = latents_BK[part], f_BK[part, :, None], target_BD[part]
            rows_RKD = rows_FD[latents_RK]
            # What the reconstructions with the latents up to each rank have too much.
            errors_RKD = (rows_RKD * f_RK1).cumsum_(1)
            errors_RKD += (bias_D - target_RD.float()).unsqueeze(1)
            x_hats.append(errors_RKD[:, -1] + target_RD.float())
            sums_K += errors_RKD.square().sum(dim=(0, 2))
            # A latent is in the reconstructions of its own rank and of all larger k.
            pulls_RKD = errors_RKD.flip(1).cumsum_(1).flip(1)
            bias_gradient_D += pulls_RKD[:, 0].sum(0)
            f_gradient_BK[part] = rows_RKD.mul_(pulls_RKD).sum(-1)
            of_rows_ND = pulls_RKD.mul_(f_RK1).flatten(0, 1)
            rows_gradient_FD += sum_of_rows(of_rows_ND, latents_RK.flatten(), len(rows_FD))
        ctx.scale = 2 / (tokens * ranks)
        ctx.save_for_backward(f_gradient_BK, rows_gradient_FD, bias_gradient_D)
        errors_K, x_hat_BD = sums_K / tokens, torch.cat(x_hats)
        ctx.mark_non_differentiable(errors_K, x_hat_BD)
        return errors_K.mean(), errors_K, x_hat_BD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0] * ctx.scale
        f_BK, rows_FD, bias_D = ctx.saved_tensors
        return f_BK * scale, rows_FD * scale, bias_D * scale, None, None
