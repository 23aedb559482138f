"""An evaluation of one's own: the LM's loss with reconstructions in place, by position in the
context."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from saemake.activations.drop_settings import Drop, RecordedDrop
from saemake.base.sections import Closed, Count
from saemake.evaluation import register
from saemake.evaluation.description import (
    Cost,
    Settings,
    Text,
    TextEvaluation,
    coding_operations,
)
from saemake.llm.cost import Lm, Operations, Reading


class LossByPositionSettings(Settings):
    """`first` positions of a context are looked at apart from the others."""

    contexts: Count
    context_tokens: Count
    first: Count
    held_out: bool
    drop: RecordedDrop = Drop()


class LossByPositionFigures(Closed):
    """Cross-entropies in nats with reconstructions in place of activations."""

    loss_first: float | None = Field(description="mean over predictions at the first positions")
    loss_later: float | None = Field(description="mean over predictions at the other positions")


@register
class LossByPosition(TextEvaluation):
    """Loss by position."""

    name = "loss_by_position"
    version = 1
    Settings = LossByPositionSettings
    Figures = LossByPositionFigures
    label = "loss by position"

    @classmethod
    def text(cls, settings: Any) -> Text:
        return Text("packed", settings.contexts, settings.context_tokens)

    @classmethod
    def cost(
        cls, settings: Any, lm: Lm, reading: Reading, latents: Sequence[int], batch_contexts: int
    ) -> Cost:
        runs = lm.to_site(reading) + len(latents) * lm.after_site(reading)
        coding = coding_operations(lm, reading, latents)
        return Cost(Operations(runs, coding), predicted=reading.tokens)
