"""Floating-point operations of jobs: of matrix products and attention, two a multiplication and
addition, as torch counts them (causal attention like full attention). The rest is under a percent.

Shapes: D the model's width, F latents, N tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from saemake.architectures import Architecture, Settings
from saemake.config import SaeBenchCore
from saemake.evaluation.directions import pairs_multiplied
from saemake.llm.shape import Shape
from saemake.plan.text import Reading
from saemake.training.settings import Training


@dataclass(frozen=True)
class Lm:
    """What the plan knows of a language model, split at a layer."""

    shape: Shape
    blocks: int
    layer: int

    def to_layer(self, reading: Reading) -> int:
        """Up to the layer, which a capture runs."""
        return (self.layer + 1) * self._block(reading)

    def after_layer(self, reading: Reading) -> int:
        """From there to the logits, which each intervention runs."""
        unembedding = 2 * self.shape.head_weights * reading.positions
        return (self.blocks - self.layer - 1) * self._block(reading) + unembedding

    def whole(self, reading: Reading) -> int:
        """All of it."""
        return self.to_layer(reading) + self.after_layer(reading)

    def _block(self, reading: Reading) -> int:
        # Of each two positions a product of their query and key, and one with the value.
        attention = 4 * self.shape.attention_width * reading.pairs
        return 2 * self.shape.block_weights * reading.positions + attention


@dataclass(frozen=True)
class Operations:
    """Of a job: the LM's; those of SAEs or baselines; and what the latter may be more while latents
    are dead, which nobody knows before."""

    lm: int
    saes: int
    dead: int = 0

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.lm + other.lm, self.saes + other.saes, self.dead + other.dead)


NOTHING = Operations(0, 0)


def of_training(
    lm: Lm,
    reading: Reading,
    kind: type[Architecture],
    settings: Settings,
    training: Training,
    steps: int,
    latents: int,
    saes: int,
) -> Operations:
    """A pass that trains so many SAEs of one kind."""
    product = 2 * training.batch_tokens * lm.shape.d_model * latents * steps * saes
    dead = kind.dead_products(settings, training, steps)
    return Operations(lm.to_layer(reading), kind.step_products * product, round(dead * product))


def of_fitting(lm: Lm, reading: Reading) -> Operations:
    """Baselines: the products of the activations with themselves."""
    return Operations(lm.to_layer(reading), 2 * reading.tokens * lm.shape.d_model**2)


def of_dictionary_learning(lm: Lm, reading: Reading, latents: Sequence[int]) -> Operations:
    """The LM as it is, with zeros after the layer, and with each codec's reconstructions there."""
    return Operations(
        lm.whole(reading) + (1 + len(latents)) * lm.after_layer(reading),
        _codecs(lm, reading, latents),
    )


def of_core(lm: Lm, reading: Reading, latents: Sequence[int], settings: SaeBenchCore) -> Operations:
    """The same on the batches for reconstruction, but zeros on two contexts of each; captures on
    those for variance; and the cosines of each two latents' directions, encoder's and decoder's."""
    batches = settings.reconstruction_batches + settings.variance_batches
    behaviour = reading.share(settings.reconstruction_batches / batches)
    variance = reading.share(settings.variance_batches / batches)
    zeros = behaviour.share(min(2 / settings.batch_contexts, 1))
    cosines = sum(4 * pairs_multiplied(f) * lm.shape.d_model for f in latents)
    return Operations(
        lm.whole(behaviour)
        + len(latents) * lm.after_layer(behaviour)
        + lm.after_layer(zeros)
        + lm.to_layer(variance),
        _codecs(lm, reading, latents) + cosines,
    )


def _codecs(lm: Lm, reading: Reading, latents: Sequence[int]) -> int:
    """Encoding and decoding every token by each."""
    return sum(4 * reading.tokens * lm.shape.d_model * f for f in latents)
