"""The evaluation of dictionary_learning: twelve figures, on documents at the training's context."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from saemake.activations.drop_settings import Drop, RecordedDrop
from saemake.base.sections import Closed, Count
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
from saemake.llm.cost import Lm, Operations, Reading

# Positions whose latents are in memory together.
TOKENS_AT_ONCE = 4096


class DictionaryLearningSettings(Settings):
    """`held_out` False judges on the text from its beginning, as the published suite was."""

    documents: Count
    held_out: bool
    drop: RecordedDrop = Drop()


class DictionaryLearningFigures(Closed):
    """dictionary_learning's `evaluate`, on documents at the training's context; all tokens. Null
    where a figure is not defined: a division by 0, an overflow of the LM's dtype."""

    l2_loss: float | None = Field(description="mean |x - x̂|")
    l1_loss: float | None = Field(
        description="mean sum of |latents|, weighed by the norms of their decoder directions"
    )
    l0: float | None = Field(description="mean number of latents that are not 0")
    frac_variance_explained: float | None = Field(description="1 - var(x - x̂) / var(x)")
    cossim: float | None = Field(description="mean cosine similarity of x̂ and x")
    l2_ratio: float | None = Field(description="mean |x̂| / |x|")
    relative_reconstruction_bias: float | None = Field(
        description="E|x̂|² / E[x̂·x] (arXiv:2404.16014, equation 10)"
    )
    loss_original: float | None = Field(description="the LM's cross-entropy in nats a token")
    loss_reconstructed: float | None = Field(description="the same with x̂ in place of x")
    loss_zero: float | None = Field(description="the same with zeros in place of x")
    frac_recovered: float | None = Field(description="(zero - reconstructed) / (zero - original)")
    frac_alive: float | None = Field(description="share of latents that fired")


@register
class DictionaryLearning(TextEvaluation):
    """dictionary_learning's `evaluate`, release 0.1.0."""

    name = "dictionary_learning"
    version = 6
    Settings = DictionaryLearningSettings
    Figures = DictionaryLearningFigures
    label = "dictionary_learning"
    roles = Roles("frac_recovered", "frac_variance_explained", "loss_original", "loss_zero")
    card: ClassVar[Mapping[str, str]] = {
        "L0": "l0",
        "loss recovered": "frac_recovered",
        "variance explained": "frac_variance_explained",
        "alive": "frac_alive",
    }
    published: ClassVar[Mapping[str, str]] = {
        "l0": "bundled_l0",
        "loss_recovered": "bundled_frac_recovered",
    }

    @classmethod
    def text(cls, settings: Any) -> Text:
        return Text("documents", settings.documents)

    @classmethod
    def cost(
        cls, settings: Any, lm: Lm, reading: Reading, latents: Sequence[int], batch_contexts: int
    ) -> Cost:
        """The LM as it is, with zeros after the layer, and with each codec's reconstructions there.
        Logits are looked at a context at a time, in float32 beside their log-softmax."""
        return Cost(
            Operations(
                lm.whole(reading) + (1 + len(latents)) * lm.after_site(reading),
                coding_operations(lm, reading, latents),
            ),
            predicted=reading.tokens,
            rows=TOKENS_AT_ONCE,
            float32_logits=2,
        )

    @classmethod
    def needs_owners_rounding(cls, settings: Any) -> bool:
        return True

    @classmethod
    def too_little_text(cls, settings: Any, key: str, contexts: int) -> str:
        fewer = f"set that to at most {contexts:,}" if contexts else OTHER_TEXT
        return f"{key}.documents; {fewer}"
