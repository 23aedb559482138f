"""SAE Bench's core evaluation (release 0.6.0, `sae_bench.evals.core.main`), on packed contexts.
The first contexts serve to compare the LM's behaviour, the others for sparsity and variance.

BOS, EOS and padding count nowhere and keep their own activation. Further positions that `drop`
leaves out also keep their own activation, and count only in cross-entropy and KL. Figures that SAE
Bench computes per batch (relative_reconstruction_bias, explained_variance_legacy) are computed per
batch here too.

`defects: mended` corrects four defects of SAE Bench:
- explained_variance is 1 - E|x - x̂|² / (E|x|² - |E x|²). SAE Bench has the square of the mean of
  all x² in place of |E x|².
- mse is the mean over tokens and dimensions. SAE Bench divides the mean squared norm over a batch's
  tokens once more by the number of tokens.
- The Kullback-Leibler divergence uses log-softmaxes. SAE Bench takes logarithms of softmaxes, which
  may be 0.
- A reconstruction of norm 0 has cosine similarity 0. In SAE Bench it makes the mean NaN.
`defects: kept` computes these four as SAE Bench does.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from saemake.activations.dropping import Dropping
from saemake.base import progress
from saemake.evaluation.codecs import Codec, Coded, Judgement, reconstructed
from saemake.evaluation.directions import largest_cosines, unit
from saemake.evaluation.running import Mean, Variance, ratio, recovered
from saemake.llm.hookpoint import RESIDUAL
from saemake.llm.model import LanguageModel, Run, checked
from saemake.text.shards import Contexts, Tokens

LOGITS_AT_ONCE = 2**20


@torch.no_grad()
def judge(
    codecs: Mapping[Any, Codec],
    lm: LanguageModel,
    tokens: Tokens,
    settings: Any,
    batch_contexts: int,
    label: str,
) -> dict[Any, Judgement]:
    """Judge every codec on `tokens`. Runs that do not depend on a codec happen once: the unmodified
    LM, the LM without the site, and the LM up to the site.

    Raises SaemakeError if activations are not finite.
    """
    mended = settings.defects == "mended"
    special = tokens.manifest["special_tokens"]
    ignored = torch.tensor([special[n] for n in ("bos", "eos", "pad") if special[n] is not None])
    dropping = Dropping.of(settings.drop, tokens)
    behaviours = {key: _Behaviour(mended) for key in codecs}
    ablated, clean = _Behaviour(mended), Mean()
    activities = {key: _Activity(codec, lm, mended) for key, codec in codecs.items()}
    batches = tokens.contexts(batch_contexts)

    def so_far() -> progress.Figures:
        if not clean.count:
            return {}
        scores = [each.figures(clean, ablated)["ce_loss_score"] for each in behaviours.values()]
        return {progress.RECOVERED: scores}

    with progress.bar(tokens.count, label, "tok", figures=so_far) as bar:
        for contexts in itertools.islice(batches, settings.reconstruction_batches):
            counted_BL = ~torch.isin(contexts.ids, ignored)
            run = lm.run(contexts)
            written_BLD = run.written_BLD
            counted = counted_BL.to(lm.device)
            kept = counted & dropping.kept(contexts, *run.sites).to(lm.device)
            x_ND = checked(run.read_BLD[kept].float(), label, lm)
            reference = _Reference(run.logits, contexts, counted)
            clean.add(reference.losses())
            reference.compare(_without_site(lm, contexts, run), ablated)
            for key, codec in codecs.items():
                spliced_BLD = written_BLD.clone()
                spliced_BLD[kept] = reconstructed(codec, x_ND).to(written_BLD.dtype)
                reference.compare(
                    lm.run_with(contexts, spliced_BLD, run.before_BLD), behaviours[key]
                )
            del reference, run  # frees the batch's logits before the next batch
            bar.update(contexts.tokens)
        variance = Variance(lm.d_model, lm.device)
        source, target = lm.hookpoint.source, lm.hookpoint.target
        for contexts in itertools.islice(batches, settings.variance_batches):
            sites = lm.captures(contexts, [source, target])
            kept_BL = dropping.kept(contexts, *sites.values())
            kept_BL &= ~torch.isin(contexts.ids, ignored).to(kept_BL.device)
            on_device = kept_BL.to(lm.device)
            at = {site: checked(h[on_device].float(), label, lm) for site, h in sites.items()}
            variance.add(at[target])
            contexts_N = kept_BL.nonzero()[:, 0].to(lm.device)
            batch = _Batch(at[source], at[target], contexts_N, len(kept_BL))
            for activity in activities.values():
                activity.add(batch)
            bar.update(contexts.tokens)
    context = settings.context_tokens * batch_contexts
    amounts = {
        "total_tokens_eval_reconstruction": settings.reconstruction_batches * context,
        "total_tokens_eval_sparsity_variance": settings.variance_batches * context,
    }
    return {
        key: Judgement(
            {
                **behaviours[key].figures(clean, ablated),
                **activities[key].figures(variance),
                **misc(latents := activities[key].latents()),
                **amounts,
            },
            latents,
        )
        for key in codecs
    }


class _Behaviour:
    """The LM's behaviour with replaced activations: its loss, and its KL divergence from the
    unmodified LM, both in nats."""

    def __init__(self, mended: bool) -> None:
        self.mended = mended
        self.loss, self.kl = Mean(), Mean()

    def figures(self, clean: Mean, ablated: "_Behaviour") -> dict[str, float]:
        return {
            "kl_div_score": 1 - ratio(self.kl.value, ablated.kl.value),
            "kl_div_with_ablation": ablated.kl.value,
            "kl_div_with_sae": self.kl.value,
            "ce_loss_score": recovered(clean.value, self.loss.value, ablated.loss.value),
            "ce_loss_with_ablation": ablated.loss.value,
            "ce_loss_with_sae": self.loss.value,
            "ce_loss_without_sae": clean.value,
        }


class _Reference:
    """The unmodified LM on a batch, for comparison at the counted positions. As in SAE Bench, the
    loss of a prediction counts if the position that makes it counts."""

    def __init__(self, logits: Iterable[Tensor], contexts: Contexts, counted_BL: Tensor) -> None:
        predicted_BL = counted_BL.clone()
        predicted_BL[:, -1] = False
        self.counted_P = counted_BL.flatten().nonzero()[:, 0]
        self.predicted_P = predicted_BL.flatten().nonzero()[:, 0]
        self.logs = list(self._logs(logits))
        following_P = contexts.ids.roll(-1, dims=1).flatten().to(counted_BL.device)
        self.following = following_P.split([len(log_RV) for log_RV in self.logs])

    def losses(self) -> Tensor:
        """Cross-entropies in nats of the unmodified LM, one per counted prediction."""
        parts = zip(self.logs, self.following, strict=True)
        return torch.cat([_losses(log_RV, next_R) for log_RV, next_R in parts])[self.predicted_P]

    def compare(self, logits: Iterable[Tensor], behaviour: "_Behaviour") -> None:
        """Add to `behaviour` the losses and divergences of the logits of a modified LM."""
        losses, divergences = [], []
        parts = zip(self._logs(logits), self.logs, self.following, strict=True)
        for log_RV, clean_log_RV, next_R in parts:
            losses.append(_losses(log_RV, next_R))
            clean_RV = clean_log_RV.exp()
            if behaviour.mended:
                difference_RV = clean_log_RV - log_RV
            else:
                difference_RV = clean_RV.log() - log_RV.exp().log_()
            divergences.append(difference_RV.mul_(clean_RV).sum(dim=-1))
        behaviour.loss.add(torch.cat(losses)[self.predicted_P])
        behaviour.kl.add(torch.cat(divergences)[self.counted_P])

    def _logs(self, logits: Iterable[Tensor]) -> Iterator[Tensor]:
        """Log-probabilities in parts [R, V], so small that they stay in the cache."""
        for logits_LV in logits:
            for part_RV in logits_LV.split(max(LOGITS_AT_ONCE // logits_LV.shape[1], 1)):
                yield part_RV.float().log_softmax(dim=-1)


def _losses(log_RV: Tensor, next_R: Tensor) -> Tensor:
    """Cross-entropies in nats [R] of the next tokens, from log-probabilities [R, V]."""
    return -log_RV.gather(1, next_R[:, None])[:, 0]


def _without_site(lm: LanguageModel, contexts: Contexts, run: Run) -> Iterable[Tensor]:
    """The logits with zeros at the hookpoint. In most LMs they do not depend on the tokens where it
    is the residual stream, so all contexts have the same logits. If the first two contexts do, the
    others are not computed."""
    residual = lm.hookpoint.target.read in RESIDUAL
    if residual and len(contexts.ids) > 2 and contexts.mask.all():
        logits = list(_on_zeros(lm, Contexts(contexts.ids[:2], contexts.mask[:2]), None))
        first, second = logits[: len(logits) // 2], logits[len(logits) // 2 :]
        if all(map(torch.equal, first, second)):
            return first * len(contexts.ids)
    return _on_zeros(lm, contexts, run.before_BLD)


def _on_zeros(lm: LanguageModel, contexts: Contexts, before_BLD: Tensor | None) -> Iterator[Tensor]:
    shape = (*contexts.ids.shape, lm.d_model)
    zeros_BLD = torch.zeros(shape, dtype=lm.dtype, device=lm.device)
    return lm.run_with(contexts, zeros_BLD, before_BLD)


class _Batch:
    """The activations [N, D] of a batch and their targets (the same, unless they are a
    transcoder's), the context of each, and values that all codecs need."""

    def __init__(self, x_ND: Tensor, y_ND: Tensor, contexts_N: Tensor, contexts: int) -> None:
        self.x_ND, self.y_ND, self.contexts_N, self.contexts = x_ND, y_ND, contexts_N, contexts
        self.norm_N = y_ND.norm(dim=-1)
        self.from_mean_N = (y_ND - y_ND.mean(dim=0)).square().sum(dim=-1)


class _Activity:
    """The running figures of one codec's latents and reconstructions. Latents are multiplied by the
    norms of their decoder rows, which SAE Bench's loaders fold into the encoder."""

    def __init__(self, codec: Codec, lm: LanguageModel, mended: bool) -> None:
        self.codec, self.mended = codec, mended
        self.norm_F = codec.decoder_rows.norm(dim=-1)
        self.l2_in, self.l2_out, self.l2_ratio, self.bias = Mean(), Mean(), Mean(), Mean()
        self.cossim, self.mse, self.legacy, self.residual = Mean(), Mean(), Mean(), Mean()
        # Means per batch, for SAE Bench's explained variance.
        self.squares, self.residual_means = Mean(), Mean()
        self.tokens, self.active = 0, 0
        self.l1 = torch.zeros((), dtype=torch.float64, device=lm.device)
        self.firings_F = torch.zeros(codec.width, dtype=torch.long, device=lm.device)
        self.contexts_F = torch.zeros(codec.width, dtype=torch.long, device=lm.device)

    def add(self, batch: _Batch) -> None:
        if not len(batch.x_ND):  # no position counts, and the mean of none is NaN
            return
        coded = Coded(self.codec, batch.x_ND)
        self._add_latents(coded, batch)
        self._add_reconstructions(coded.x_hat_ND, batch)

    def _add_latents(self, coded: Coded, batch: _Batch) -> None:
        width = self.codec.width
        self.tokens += len(batch.x_ND)
        self.active += len(coded.values_M)
        sizes_M = coded.values_M.abs() if self.codec.negative_fires else coded.values_M
        self.l1 += (sizes_M * self.norm_F.take(coded.latents_M)).double().sum()
        pairs_M = batch.contexts_N[coded.tokens_M].mul_(width).add_(coded.latents_M)
        pairs_A = pairs_M[sizes_M > 0]
        firings_CF = pairs_A.bincount(minlength=batch.contexts * width).view(-1, width)
        self.firings_F += firings_CF.sum(dim=0)
        self.contexts_F += (firings_CF > 0).sum(dim=0)

    def _add_reconstructions(self, x_hat_ND: Tensor, batch: _Batch) -> None:
        out_N = x_hat_ND.norm(dim=-1)
        product_N = (batch.y_ND * x_hat_ND).sum(dim=-1)
        squared_N = (batch.y_ND - x_hat_ND).square().sum(dim=-1)
        cosine_N = product_N / (batch.norm_N * out_N)
        self.l2_in.add(batch.norm_N)
        self.l2_out.add(out_N)
        self.l2_ratio.add(out_N / batch.norm_N.where(batch.norm_N >= 1e-4, 1))
        self.bias.add(out_N.square().mean() / product_N.mean())
        self.cossim.add(cosine_N.where(out_N > 0, 0) if self.mended else cosine_N)
        self.mse.add(squared_N / (batch.x_ND.shape[1] if self.mended else len(squared_N)))
        self.legacy.add(1 - squared_N / batch.from_mean_N)
        self.residual.add(squared_N)
        self.squares.add(batch.norm_N.square().mean())
        self.residual_means.add(squared_N.mean())

    def figures(self, variance: Variance) -> dict[str, float]:
        if self.mended:
            explained = 1 - ratio(self.residual.value, variance.value)
        else:
            of_all = self.squares.value / self.codec.d_model
            explained = 1 - ratio(self.residual_means.value, self.squares.value - of_all**2)
        return {
            "explained_variance": explained,
            "explained_variance_legacy": self.legacy.value,
            "mse": self.mse.value,
            "cossim": self.cossim.value,
            "l2_norm_in": self.l2_in.value,
            "l2_norm_out": self.l2_out.value,
            "l2_ratio": self.l2_ratio.value,
            "relative_reconstruction_bias": self.bias.value,
            "l0": ratio(self.active, self.tokens),
            "l1": ratio(float(self.l1), self.tokens),
        }

    def latents(self) -> dict[str, Tensor]:
        """Values per latent, [F] each: the fraction of tokens at which it fires, the mean number of
        firings in the contexts where it fires (NaN if in none), and properties of its weights."""
        encoder_FD = self.codec.encoder_weight * self.norm_F[:, None]
        decoder_FD = self.codec.decoder_rows
        cosine_F = torch.cosine_similarity(encoder_FD, decoder_FD, dim=-1)
        if self.codec.transcodes:  # of two sites: a cosine of their directions says nothing
            cosine_F = torch.full_like(cosine_F, torch.nan)
        return {
            "feature_density": self.firings_F.double() / self.tokens,
            "consistent_activation_heuristic": self.firings_F.double() / self.contexts_F,
            "encoder_bias": self.codec.encoder_bias * self.norm_F,
            "encoder_norm": encoder_FD.norm(dim=-1),
            "encoder_decoder_cosine_sim": cosine_F,
            "max_encoder_cosine_sim": largest_cosines(unit(encoder_FD)),
            "max_decoder_cosine_sim": largest_cosines(unit(decoder_FD)),
        }


def misc(latents: Mapping[str, Tensor]) -> dict[str, float]:
    """The miscellaneous figures, computed from the values per latent."""
    density_F = latents["feature_density"]
    total = density_F.sum()

    def share_over(least: float) -> float:
        return (density_F[density_F > least].sum() / total).item() if total > 0 else 0.0

    return {
        "freq_over_1_percent": (density_F > 0.01).double().mean().item(),
        "freq_over_10_percent": (density_F > 0.1).double().mean().item(),
        "normalized_freq_over_1_percent": share_over(0.01),
        "normalized_freq_over_10_percent": share_over(0.1),
        "average_max_encoder_cosine_sim": latents["max_encoder_cosine_sim"].mean().item(),
        "average_max_decoder_cosine_sim": latents["max_decoder_cosine_sim"].mean().item(),
        "frac_alive": (density_F > 0).double().mean().item(),
    }
