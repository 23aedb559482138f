"""How much text a job reads: as it is in the store, or about, before it is tokenised."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open

from saemake.config.config import Config
from saemake.config.sections import CHARACTERS_PER_TOKEN
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
                lengths = in_windows(lengths, batch_contexts)
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
        """Tokens in a context: those of the text's typical document, or a whole context. The mean
        over the parts of a mixture."""
        rounds, each = zip(*self._parts(model, use), strict=True)
        return max(1, round(np.average(each, weights=rounds)))

    def _parts(self, model: str, use: str) -> list[tuple[int, int]]:
        """Of each text that is read, how many contexts come in a round, and the tokens in one."""
        recipe = tokens_recipe(self.config, model, use)
        rounds = [part.contexts for part in recipe.mix] or [1]
        names = self.config.parts_of(self.config.text_of(model, use))
        return [
            (contexts, self._context(name, source.layout, recipe.context_tokens))
            for contexts, name, source in zip(rounds, names, recipe.sources, strict=True)
        ]

    def _context(self, text: str, layout: str, context_tokens: int) -> int:
        typical = self.config.texts[text].document_tokens
        if layout != "documents" or typical is None:
            return context_tokens
        return min(typical, context_tokens)

    def bytes_read(self, model: str, use: str) -> dict[str, int | None]:
        """About how many bytes are read of each text; None where the config does not say how long
        its documents are."""
        recipe, reading = tokens_recipe(self.config, model, use), self.reading(model, use, 1)
        names, parts = (
            self.config.parts_of(self.config.text_of(model, use)),
            self._parts(model, use),
        )
        in_round = sum(rounds for rounds, _ in parts)
        read: dict[str, int | None] = {}
        for name, source, (rounds, tokens) in zip(names, recipe.sources, parts, strict=True):
            text, contexts = self.config.texts[name], reading.contexts * rounds / in_round
            if text.document_tokens is None or text.document_bytes is None:
                read[name] = None
                continue
            if source.layout == "joined":
                characters = CHARACTERS_PER_TOKEN * recipe.context_tokens
                documents = contexts * math.ceil(characters / text.document_bytes)
            else:
                documents = contexts * tokens / text.document_tokens
            read[name] = math.ceil(documents) * text.document_bytes
        return read


def _lengths(folder: Path) -> Iterator[int]:
    """The lengths of the contexts of a manifest's shards."""
    from saemake.text.shards import Tokens  # imports torch, which few commands need

    for shard in Tokens(folder / "manifest.json").manifest["shards"]:
        with safe_open(folder / shard["file"], framework="np") as opened:
            yield from opened.get_tensor("lengths").tolist()


def in_windows(lengths: Sequence[int], batch_contexts: int) -> list[int]:
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
