"""What running a language model costs, computed from its shape and the text alone."""

from dataclasses import dataclass

from saemake.llm.hookpoint import RESID_POST, Hookpoint
from saemake.llm.shape import Shape


@dataclass(frozen=True)
class Reading:
    """The amount of text that a job reads. `positions` are those of the LM's batches, padding
    included. `pairs` counts the pairs of positions within one context, summed over contexts.
    `known` says whether the text could be counted; otherwise the numbers are estimates."""

    contexts: int
    tokens: int
    positions: int
    pairs: int
    known: bool

    def share(self, part: float) -> "Reading":
        """The fraction `part` of each amount, rounded."""
        amounts = (self.contexts, self.tokens, self.positions, self.pairs)
        contexts, tokens, positions, pairs = (round(part * amount) for amount in amounts)
        return Reading(contexts, tokens, positions, pairs, self.known)


class Latents(int):
    """The number of a codec's latents, with the matrix products that encode a batch."""

    encodings: float = 1

    @classmethod
    def encoded_by(cls, latents: int, products: float) -> "Latents":
        count = cls(latents)
        count.encodings = products
        return count


@dataclass(frozen=True)
class Lm:
    """Operations (FLOPs) of a language model, split at a hookpoint. The part of a block that is run
    counts as the whole block."""

    shape: Shape
    blocks: int
    hookpoint: Hookpoint

    def to_site(self, reading: Reading) -> int:
        """FLOPs of all blocks that a capture runs: what is read and what is reconstructed."""
        run = self.hookpoint.layer + (self.hookpoint.target.read != "resid_pre")
        return run * self._block(reading)

    def after_site(self, reading: Reading) -> int:
        """FLOPs to the logits, which each intervention runs: from after the block, or within a
        block, from the block on."""
        skipped = self.hookpoint.layer + (self.hookpoint.target.read == RESID_POST)
        unembedding = 2 * self.shape.head_weights * reading.positions
        return (self.blocks - skipped) * self._block(reading) + unembedding

    def end_to_end(self, reading: Reading) -> int:
        """FLOPs of an intervention with the gradient by what it puts there: each product with a
        weight twice, each of attention three times. The head runs on the LM's own activations
        too."""
        skipped = self.hookpoint.layer + (self.hookpoint.target.read == RESID_POST)
        weights = 2 * self.shape.block_weights * reading.positions
        block = 2 * weights + 3 * (self._block(reading) - weights)
        return (self.blocks - skipped) * block + 3 * 2 * self.shape.head_weights * reading.tokens

    def whole(self, reading: Reading) -> int:
        """FLOPs of the whole model."""
        unembedding = 2 * self.shape.head_weights * reading.positions
        return self.blocks * self._block(reading) + unembedding

    def _block(self, reading: Reading) -> int:
        # Each pair of positions costs a product of query and key and a product with the value.
        attention = 4 * self.shape.attention_width * reading.pairs
        return 2 * self.shape.block_weights * reading.positions + attention


@dataclass(frozen=True)
class Operations:
    """FLOPs of a job: `lm` by the LM, `saes` by SAEs or baselines, and up to `dead` more by SAEs
    while they have dead latents, whose number nobody knows before training."""

    lm: int
    saes: int
    dead: int = 0

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.lm + other.lm, self.saes + other.saes, self.dead + other.dead)


NOTHING = Operations(0, 0)
