"""The end-to-end loss of an SAE: how the LM's output changes with reconstructions in the place of
its activations, and the gradient of that. The LM stays frozen.

`kl` is the divergence of the LM's distributions from its own, in nats, averaged over all positions
but padding (https://arxiv.org/abs/2405.12241; sparsify's `loss_fn`, whose loss is larger by the
entropy of the LM's own distributions and has the same gradient). `ce` is the cross-entropy of the
text's next tokens, in nats, averaged over these.

Shapes: B contexts, C contexts of a piece, L positions, N positions that are reconstructed, R
positions whose logits are computed together, D the model's width, V the vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from saemake.llm.at_once import LOGITS_TOGETHER
from saemake.llm.model import LanguageModel, Run
from saemake.text.shards import Contexts


class EndToEnd:
    """The loss of one batch of contexts as a function of reconstructions. `intact` is the LM's own
    run on them; `kept_BL` (bool) says which positions are reconstructed. The others keep their own
    activations."""

    def __init__(
        self, lm: LanguageModel, kind: str, contexts: Contexts, intact: Run, kept_BL: Tensor
    ) -> None:
        self.lm, self.kind, self.contexts, self.intact = lm, kind, contexts, intact
        self.kept_BL = kept_BL.to(lm.device)
        self.counted_BL = counted(kind, contexts).to(lm.device)

    def loss(self, y_hat_ND: Tensor) -> Tensor:
        """The loss with these reconstructions of the kept positions, in the order of the text and
        for raw activations; float32 scalar on their device. Its graph needs no more memory than a
        gradient: the LM runs forward and back at once, a piece of the contexts at a time."""
        loss: Tensor = _AtOnce.apply(y_hat_ND, self)
        return loss

    def value_and_gradient(self, y_hat_ND: Tensor) -> tuple[Tensor, Tensor]:
        """The loss (float32 scalar) and its gradient [N, D], on the LM's device."""
        count = self.counted_BL.sum()
        total, gradients = torch.zeros((), device=self.lm.device), []
        for piece in self._pieces():
            rows = y_hat_ND[piece.first : piece.first + int(piece.kept_CL.sum())]
            leaf_MD = rows.detach().to(self.lm.device, torch.float32).requires_grad_()
            value, gradient = self._of_piece(piece, leaf_MD)
            total += value
            gradients.append(gradient / count)
        return total / count, torch.cat(gradients)

    def _pieces(self) -> Iterator["_Piece"]:
        start = first = 0
        for contexts, last_CLX in zip(
            self.lm.pieces(self.contexts), self.intact.lasts, strict=True
        ):
            rows = slice(start, start + len(contexts.ids))
            yield _Piece(contexts, self.kept_BL[rows], self.counted_BL[rows], rows, last_CLX, first)
            start += len(contexts.ids)
            first += int(self.kept_BL[rows].sum())

    def _of_piece(self, piece: "_Piece", leaf_MD: Tensor) -> tuple[Tensor, Tensor]:
        """The summed loss of a piece, and its gradient by the reconstructions in it."""
        before_BLD = self.intact.before_BLD
        before_CLD = None if before_BLD is None else before_BLD[piece.rows]
        with torch.enable_grad():
            written_CLD = self.intact.written_BLD[piece.rows].clone()
            written_CLD[piece.kept_CL] = leaf_MD.to(written_CLD.dtype)
            (last_CLX,) = self.lm.lasts_with(piece.contexts, written_CLD, before_CLD)
        value, last_gradient_CLX = self._of_lasts(piece, last_CLX.detach())
        if not len(leaf_MD):
            return value, leaf_MD.detach()
        last_CLX.backward(last_gradient_CLX)
        assert leaf_MD.grad is not None
        return value, leaf_MD.grad

    def _of_lasts(self, piece: "_Piece", last_CLX: Tensor) -> tuple[Tensor, Tensor]:
        """The summed loss of what the head reads, and its gradient; logits are computed of a few
        positions at a time."""
        counted_CL = piece.counted_CL.to(last_CLX.device)
        rows_X, intact_X = last_CLX[counted_CL], piece.last_CLX[counted_CL]
        next_C = piece.contexts.ids.roll(-1, dims=1).to(last_CLX.device)[counted_CL]
        total, gradients = torch.zeros((), device=self.lm.device), []
        for part in torch.arange(len(rows_X)).split(LOGITS_TOGETHER[self.lm.device.type]):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            with torch.enable_grad():
                leaf_RX = rows_X[rows].detach().requires_grad_()
                value = self._of_logits(self.lm.logits_of(leaf_RX), intact_X[rows], next_C[rows])
                value.backward()
            assert leaf_RX.grad is not None
            total += value.detach().to(total.device)
            gradients.append(leaf_RX.grad)
        gradient_CLX = torch.zeros_like(last_CLX)
        gradient_CLX[counted_CL] = torch.cat(gradients) if gradients else rows_X
        return total, gradient_CLX

    def _of_logits(self, logits_RV: Tensor, intact_RX: Tensor, next_R: Tensor) -> Tensor:
        """The summed loss of logits, float32 scalar."""
        if self.kind == "ce":
            targets_R = next_R.to(logits_RV.device)
            return functional.cross_entropy(logits_RV.float(), targets_R, reduction="sum")
        with torch.no_grad():
            own_RV = self.lm.logits_of(intact_RX).float().log_softmax(dim=-1)
        return kl_sum(own_RV, logits_RV.float().log_softmax(dim=-1))


def kl_sum(own_RV: Tensor, with_RV: Tensor) -> Tensor:
    """The divergence KL(own || with) of log-probabilities, summed over positions; scalar."""
    return (own_RV.exp() * (own_RV - with_RV)).sum()


def counted(kind: str, contexts: Contexts) -> Tensor:
    """The positions whose distributions the loss averages over, bool [B, L]: all but padding, for
    `ce` those with a next token."""
    mask_BL = contexts.mask.bool()
    if kind == "kl":
        return mask_BL
    following_BL = mask_BL.roll(-1, dims=1)
    following_BL[:, -1] = False
    return mask_BL & following_BL


class _Piece:
    """Contexts that run together, `rows` of the batch. The reconstructions of its kept positions
    begin at `first`. `last_CLX` is what the head reads in the LM's own run."""

    def __init__(
        self,
        contexts: Contexts,
        kept_CL: Tensor,
        counted_CL: Tensor,
        rows: slice,
        last_CLX: Tensor,
        first: int,
    ) -> None:
        self.contexts, self.kept_CL, self.counted_CL = contexts, kept_CL, counted_CL
        self.rows, self.last_CLX, self.first = rows, last_CLX, first


class _AtOnce(torch.autograd.Function):
    """The loss, whose gradient is computed with it."""

    @staticmethod
    def forward(ctx: Any, y_hat_ND: Tensor, of: EndToEnd) -> Tensor:
        loss, gradient_ND = of.value_and_gradient(y_hat_ND)
        ctx.save_for_backward(gradient_ND.to(y_hat_ND))
        return loss.to(y_hat_ND.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient_ND,) = ctx.saved_tensors
        return gradients[0] * gradient_ND, None
