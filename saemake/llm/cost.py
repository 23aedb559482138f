"""What a run of a language model costs, from its shape and the text alone."""

from dataclasses import dataclass

from saemake.llm.shape import Shape


@dataclass(frozen=True)
class Reading:
    """What a job reads of a text. `positions` of the LM's batches count padding, `pairs` are those
    of two positions of one context, summed; `known` says whether the text was there to count."""

    contexts: int
    tokens: int
    positions: int
    pairs: int
    known: bool

    def share(self, part: float) -> "Reading":
        """That part of it."""
        amounts = (self.contexts, self.tokens, self.positions, self.pairs)
        contexts, tokens, positions, pairs = (round(part * amount) for amount in amounts)
        return Reading(contexts, tokens, positions, pairs, self.known)


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
