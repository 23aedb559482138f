"""How much text a job reads: as it is in the store, or about, before it is tokenised."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import safe_open

from saemake.config.config import Config
from saemake.llm.cost import Reading
from saemake.plan.stored import Stored
from saemake.recipes.inputs import tokens_recipe


class Texts:
    """The texts of a config, each counted once."""

    def __init__(self, config: Config, stored: Stored) -> None:
        self.config, self.stored = config, stored
        self._lengths: dict[str, list[int]] = {}

    def reading(
        self,
        model: str,
        use: str,
        batch_contexts: int,
        tokens: int | None = None,
        *,
        alike: bool = False,
    ) -> Reading:
        """Of what is tokenised for a use, in batches of so many contexts; all, or the batches until
        so many tokens. `alike`: in batches of about one length."""
        recipe = tokens_recipe(self.config, model, use)
        if self.stored.has("tokens", recipe.hash):
            folder = self.stored.folder("tokens", recipe.hash)
            if recipe.hash not in self._lengths:
                self._lengths[recipe.hash] = list(_lengths(folder))
            lengths = self._lengths[recipe.hash]
            if alike:
                lengths = _in_windows(lengths, batch_contexts)
            return counted_lengths(lengths, batch_contexts, tokens)
        length = self.about(model, use)
        contexts = recipe.amount
        if recipe.unit == "tokens":
            contexts = math.ceil(recipe.amount / length)
        if tokens is not None:
            batches = math.ceil(tokens / (length * batch_contexts))
            contexts = min(contexts, batches * batch_contexts)
        # In the text's order one context of a batch as a rule is full, and the others are padded to
        # it.
        full = length if alike else recipe.context_tokens
        return Reading(contexts, contexts * length, contexts * full, contexts * full**2, False)

    def about(self, model: str, use: str) -> int:
        """Tokens in a context: those of the text's typical document, or a whole context."""
        recipe = tokens_recipe(self.config, model, use)
        typical = self.config.texts[self.config.text_of(model, use)].document_tokens
        if recipe.layout == "packed" or typical is None:
            return recipe.context_tokens
        return min(typical, recipe.context_tokens)


def _lengths(folder: Path) -> Iterator[int]:
    """The lengths of the contexts of a manifest's shards."""
    from saemake.text.shards import Tokens  # imports torch, which few commands need

    for shard in Tokens(folder / "manifest.json").manifest["shards"]:
        with safe_open(folder / shard["file"], framework="np") as opened:
            yield from opened.get_tensor("lengths").tolist()


def _in_windows(lengths: list[int], batch_contexts: int) -> list[int]:
    """The lengths in the order that `Tokens.alike` reads the contexts in."""
    from saemake.text.shards import WINDOW, window_batches

    size = WINDOW * batch_contexts
    windows = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return [
        here[index]
        for number, here in enumerate(windows)
        for chosen in window_batches(here, batch_contexts, number)
        for index in chosen
    ]


def counted_lengths(lengths: list[int], batch_contexts: int, tokens: int | None = None) -> Reading:
    """Of contexts of these lengths, in batches padded to the longest in each; all, or the batches
    until so many tokens."""
    batches = [lengths[i : i + batch_contexts] for i in range(0, len(lengths), batch_contexts)]
    if tokens is not None:
        read = np.cumsum([sum(batch) for batch in batches])
        batches = batches[: int(np.searchsorted(read, tokens)) + 1]
    return Reading(
        contexts=sum(len(batch) for batch in batches),
        tokens=sum(sum(batch) for batch in batches),
        positions=sum(len(batch) * max(batch) for batch in batches),
        pairs=sum(len(batch) * max(batch) ** 2 for batch in batches),
        known=True,
    )
