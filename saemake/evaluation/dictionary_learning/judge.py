"""The twelve figures of dictionary_learning's `evaluate` (release 0.1.0), on documents at the
training's context length. All tokens count except for padding and the positions that `drop` leaves
out. The latter keep their own activation and count only in the losses.

The library averages over the batches that it draws. Here every figure is over all tokens, as the
library computes it for a single batch. A reconstruction of norm 0 has cosine similarity 0, not NaN.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saemake.activations.dropping import Dropping
from saemake.base import progress
from saemake.evaluation.codecs import Codec, Judgement, completed, decoded
from saemake.evaluation.dictionary_learning import TOKENS_AT_ONCE
from saemake.evaluation.running import Mean, Variance, ratio, recovered
from saemake.llm.model import LanguageModel, Run, checked, token_losses
from saemake.text.shards import Contexts, Tokens


@torch.no_grad()
def judge(
    codecs: Mapping[Any, Codec],
    lm: LanguageModel,
    tokens: Tokens,
    settings: Any,
    batch_contexts: int,
    label: str,
) -> dict[Any, Judgement]:
    """Judge every codec on `tokens`. The LM runs up to the hookpoint once for all codecs, and
    once per codec from there on.

    Raises SaemakeError if activations are not finite.
    """
    running = {key: _Running(codec, lm) for key, codec in codecs.items()}
    clean, ablated = Mean(), Mean()
    dropping = Dropping.of(settings.drop, tokens)
    variance = Variance(lm.d_model, lm.device)

    def so_far() -> progress.Figures:
        if not clean.count:
            return {}
        losses = [figures.loss.value for figures in running.values()]
        return {
            progress.L0: [figures.l0.value for figures in running.values()],
            progress.RECOVERED: [recovered(clean.value, loss, ablated.value) for loss in losses],
        }

    with progress.bar(tokens.count, label, "tok", figures=so_far) as bar:
        for contexts in tokens.contexts(batch_contexts):
            run = lm.run(contexts)
            written_BLD = run.written_BLD
            clean.add(token_losses(run.logits, contexts))
            zeros_BLD = torch.zeros_like(written_BLD)
            ablated.add(_losses(lm, contexts, zeros_BLD, run))
            kept_BL = dropping.kept(contexts, *run.sites).to(lm.device)
            x_ND, y_ND = (
                checked(site[kept_BL].float(), label, lm) for site in run.read_and_written
            )
            variance.add(y_ND)
            for figures in running.values():
                spliced_BLD = written_BLD.clone()
                spliced_BLD[kept_BL] = figures.add(x_ND, y_ND).to(written_BLD.dtype)
                figures.loss.add(_losses(lm, contexts, spliced_BLD, run))
            bar.update(contexts.tokens)
    return {
        key: figures.judgement(clean.value, ablated.value, variance.value)
        for key, figures in running.items()
    }


def _losses(lm: LanguageModel, contexts: Contexts, hidden_BLD: Tensor, run: Run) -> Tensor:
    return token_losses(lm.run_with(contexts, hidden_BLD, run.before_BLD), contexts)


class _Running:
    """The running figures of one codec."""

    def __init__(self, codec: Codec, lm: LanguageModel) -> None:
        self.codec = codec
        # The library's loader folds the norms of the decoder's rows into the latents.
        self.norm_F = codec.decoder_rows.norm(dim=-1)
        self.loss = Mean()
        self.l2_loss, self.l1_loss, self.l0 = Mean(), Mean(), Mean()
        self.cossim, self.l2_ratio = Mean(), Mean()
        self.out_squared, self.in_times_out = Mean(), Mean()
        self.residual = Variance(lm.d_model, lm.device)
        self.active_F = torch.zeros(codec.width, dtype=torch.long, device=lm.device)

    def add(self, x_ND: Tensor, y_ND: Tensor) -> Tensor:
        """Add the figures of activations [N, D] and their targets. Returns the reconstructions of
        these, [N, D]."""
        # In parts: the latents [N, F] of a large batch and dictionary would fill the memory.
        parts = zip(x_ND.split(TOKENS_AT_ONCE), y_ND.split(TOKENS_AT_ONCE), strict=True)
        return torch.cat([self._add_part(x_PD, y_PD) for x_PD, y_PD in parts])

    def _add_part(self, x_PD: Tensor, y_PD: Tensor) -> Tensor:
        f_PF = self.codec.encode(x_PD)
        y_hat_PD = completed(self.codec, x_PD, decoded(self.codec, f_PF))
        active_PF = f_PF != 0
        in_P, out_P = y_PD.norm(dim=-1), y_hat_PD.norm(dim=-1)
        product_P = (y_PD * y_hat_PD).sum(dim=-1)
        self.l2_loss.add((y_PD - y_hat_PD).norm(dim=-1))
        self.l1_loss.add(f_PF.abs() @ self.norm_F)
        self.l0.add(active_PF.sum(dim=-1))
        self.cossim.add(torch.where(out_P > 0, product_P / (in_P * out_P), 0))
        self.l2_ratio.add(out_P / in_P)
        self.out_squared.add(out_P.square())
        self.in_times_out.add(product_P)
        self.residual.add(y_PD - y_hat_PD)
        self.active_F += active_PF.sum(dim=0)
        return y_hat_PD

    def judgement(self, clean: float, ablated: float, variance: float) -> Judgement:
        """The final figures, given the LM's cross-entropies in nats and the activations' variance
        summed over dimensions."""
        figures = {
            "l2_loss": self.l2_loss.value,
            "l1_loss": self.l1_loss.value,
            "l0": self.l0.value,
            "frac_variance_explained": 1 - ratio(self.residual.value, variance),
            "cossim": self.cossim.value,
            "l2_ratio": self.l2_ratio.value,
            "relative_reconstruction_bias": ratio(self.out_squared.value, self.in_times_out.value),
            "loss_original": clean,
            "loss_reconstructed": self.loss.value,
            "loss_zero": ablated,
            "frac_recovered": recovered(clean, self.loss.value, ablated),
            "frac_alive": (self.active_F > 0).double().mean().item(),
        }
        return Judgement(figures, {"density": self.active_F.double() / self.l0.count})
