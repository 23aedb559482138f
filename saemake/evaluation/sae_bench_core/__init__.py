"""SAE Bench's core evaluation, on packed contexts."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from saemake.activations.drop_settings import Drop, RecordedDrop
from saemake.base.sections import Closed, Count, Whole, whole
from saemake.evaluation import register
from saemake.evaluation.description import (
    OTHER_TEXT,
    Cost,
    Roles,
    Settings,
    Text,
    TextEvaluation,
    coding_operations,
)
from saemake.evaluation.pairs import pairs_multiplied
from saemake.llm.cost import Lm, Operations, Reading


class SaeBenchCoreSettings(Settings):
    """`text` None is the text that the model was trained on; `defects` says whether what SAE Bench
    0.6.0 computes wrongly is mended."""

    OUTSIDE_RECIPE: ClassVar[set[str]] = {"text"}

    text: str | None
    held_out: bool
    shuffle_seed: Whole | None
    context_tokens: Annotated[int, BeforeValidator(whole), Field(gt=1)]
    batch_contexts: Count
    reconstruction_batches: Count
    variance_batches: Count
    defects: Literal["mended", "kept"]
    drop: RecordedDrop = Drop()


class SaeBenchCoreFigures(Closed):
    """SAE Bench's core evaluation, on packed contexts; BOS, EOS and padding count nowhere. Latents
    are weighed by the norms of their decoder directions. Null where a figure is not defined:
    a division by 0, an overflow of the LM's dtype."""

    kl_div_score: float | None = Field(description="1 - with_sae / with_ablation")
    kl_div_with_ablation: float | None = Field(description="KL of the LM to itself without x, nats")
    kl_div_with_sae: float | None = Field(description="KL of the LM to itself with x̂, nats")
    ce_loss_score: float | None = Field(
        description="loss recovered: (ablation - sae) / (ablation - without)"
    )
    ce_loss_with_ablation: float | None = Field(
        description="cross-entropy in nats with zeros for x"
    )
    ce_loss_with_sae: float | None = Field(description="cross-entropy in nats with x̂ for x")
    ce_loss_without_sae: float | None = Field(description="the LM's own cross-entropy in nats")
    explained_variance: float | None = Field(description="1 - E|x - x̂|² / (E|x|² - |E x|²)")
    explained_variance_legacy: float | None = Field(
        description="mean over tokens of 1 - |x - x̂|² / |x - batch mean|²; the published figure"
    )
    mse: float | None = Field(description="mean over tokens and dimensions of (x - x̂)²")
    cossim: float | None = Field(description="mean cosine similarity of x̂ and x")
    l2_norm_in: float | None = Field(description="mean |x|")
    l2_norm_out: float | None = Field(description="mean |x̂|")
    l2_ratio: float | None = Field(description="mean |x̂| / |x|")
    relative_reconstruction_bias: float | None = Field(
        description="mean over batches of E|x̂|² / E[x̂·x]"
    )
    l0: float | None = Field(description="mean number of latents that are not 0")
    l1: float | None = Field(description="mean sum of latents")
    freq_over_1_percent: float | None = Field(description="share of latents that fire at over 1 %")
    freq_over_10_percent: float | None = Field(
        description="share of latents that fire at over 10 %"
    )
    normalized_freq_over_1_percent: float | None = Field(
        description="those latents' share of firings"
    )
    normalized_freq_over_10_percent: float | None = Field(
        description="those latents' share of firings"
    )
    average_max_encoder_cosine_sim: float | None = Field(
        description="mean of each encoder direction's largest cosine with another"
    )
    average_max_decoder_cosine_sim: float | None = Field(
        description="the same of decoder directions"
    )
    frac_alive: float | None = Field(description="share of latents that fired")
    total_tokens_eval_reconstruction: int = Field(description="for KL and cross-entropy")
    total_tokens_eval_sparsity_variance: int = Field(description="for the rest")


@register
class SaeBenchCore(TextEvaluation):
    """`sae_bench.evals.core.main`, release 0.6.0."""

    name = "sae_bench_core"
    version = 6
    Settings = SaeBenchCoreSettings
    Figures = SaeBenchCoreFigures
    label = "SAE Bench core"
    roles = Roles(
        "ce_loss_score", "explained_variance", "ce_loss_without_sae", "ce_loss_with_ablation"
    )
    card: ClassVar[Mapping[str, str]] = {
        "core L0": "l0",
        "core loss recovered": "ce_loss_score",
        "core variance explained": "explained_variance",
    }
    published: ClassVar[Mapping[str, str]] = {
        "l0": "core_l0",
        "loss_recovered": "core_loss_recovered",
    }
    leaves_out_special = True

    @classmethod
    def text(cls, settings: Any) -> Text:
        batches = settings.reconstruction_batches + settings.variance_batches
        return Text(
            "packed",
            batches * settings.batch_contexts,
            settings.context_tokens,
            settings.text,
            settings.shuffle_seed,
        )

    @classmethod
    def batch_contexts(cls, settings: Any, llm_batch_contexts: int) -> int:
        return settings.batch_contexts

    @classmethod
    def cost(
        cls, settings: Any, lm: Lm, reading: Reading, latents: Sequence[int], batch_contexts: int
    ) -> Cost:
        """On the batches for reconstruction: the LM as it is, with each codec's reconstructions,
        and with zeros on two contexts of each batch. On those for variance: captures. And the
        cosines of each two latents' directions, encoder's and decoder's."""
        batches = settings.reconstruction_batches + settings.variance_batches
        behaviour = reading.share(settings.reconstruction_batches / batches)
        variance = reading.share(settings.variance_batches / batches)
        zeros = behaviour.share(min(2 / batch_contexts, 1))
        cosines = sum(4 * pairs_multiplied(count) * lm.shape.d_model for count in latents)
        return Cost(
            Operations(
                lm.whole(behaviour)
                + len(latents) * lm.after_site(behaviour)
                + lm.after_site(zeros)
                + lm.to_site(variance),
                coding_operations(lm, reading, latents) + cosines,
            ),
            predicted=settings.reconstruction_batches * batch_contexts * settings.context_tokens,
            keeps_logits=True,
        )

    @classmethod
    def needs_owners_rounding(cls, settings: Any) -> bool:
        return settings.defects == "kept"

    @classmethod
    def too_little_text(cls, settings: Any, key: str, contexts: int) -> str:
        batch = settings.batch_contexts
        if contexts < 2 * batch:
            return f"{key}; choose a smaller batch_contexts, or {OTHER_TEXT}"
        return (
            f"{key}; set its reconstruction_batches and variance_batches to at most"
            f" {contexts // batch:,} together (of batch_contexts {batch})"
        )
