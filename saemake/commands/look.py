"""What the first contexts of a text show: lengths, padding, special tokens, how far it goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from saemake import evaluation
from saemake.config.config import Config
from saemake.inputs.sampling import Sample
from saemake.inputs.tokens import dropped_ids
from saemake.paths.artifacts import TokensFile
from saemake.plan.text import counted_lengths, in_windows
from saemake.recipes.kinds import TokensRecipe
from saemake.text.shards import Tokens

TRAIN = "train"
# Contexts that are shown, and the characters of their beginning and of their end.
SHOWN, BEGINNING, END = 3, 300, 80


@dataclass(frozen=True)
class Asked:
    """Which text, read by which model, what for."""

    text: str
    model: str
    use: str
    recipe: TokensRecipe

    @property
    def target(self) -> TokensFile:
        return TokensFile(self.model, self.use)


class Look:
    """What a sample of contexts shows. All shares are between 0 and 1."""

    def __init__(
        self,
        config: Config,
        asked: Asked,
        tokenizer: PreTrainedTokenizerBase,
        sample: Sample,
        built: Tokens | None,
        where: str,
    ) -> None:
        self.config, self.asked, self.tokenizer = config, asked, tokenizer
        self.sample, self.built, self.where = sample, built, where
        self.lengths = list(map(len, sample.contexts))
        self.tokens = sum(self.lengths)
        self.ids = np.concatenate(sample.contexts)

    @property
    def full(self) -> float:
        """The share of contexts that are as long as they may be."""
        return self.lengths.count(self.asked.recipe.context_tokens) / len(self.lengths)

    @property
    def padding(self) -> float:
        """The share of positions that are padding, in the batches of the LM."""
        model = self.config.models[self.asked.model]
        batch, lengths = model.llm_batch_contexts, self.lengths
        if self.asked.use == TRAIN:
            lengths = in_windows(lengths, batch)
        else:
            settings = self.config.evaluation_of(self.asked.model, self.asked.use)
            batch = evaluation.on_text(self.asked.use).batch_contexts(settings, batch)
        return 1 - self.tokens / counted_lengths(lengths, batch).positions

    def share(self, ids: Sequence[int]) -> float:
        """The share of tokens with one of these ids."""
        return float(np.isin(self.ids, np.array(ids, dtype=self.ids.dtype)).mean())

    @property
    def special(self) -> dict[int, float]:
        """The shares of the tokenizer's special tokens that occur, the largest first."""
        shares = {id_: self.share([id_]) for id_ in self.tokenizer.all_special_ids}
        occurring = [(id_, share) for id_, share in shares.items() if share]
        return dict(sorted(occurring, key=lambda each: -each[1]))

    @property
    def begins(self) -> list[tuple[int, float]]:
        """The ids that contexts begin with, and how many do; the most frequent first."""
        ids, counts = np.unique([ids[0] for ids in self.sample.contexts], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [(int(ids[at]), float(counts[at] / counts.sum())) for at in order]

    @property
    def dropped(self) -> float:
        """The share of tokens that are left out by their ids."""
        return self.share(dropped_ids(self.tokenizer, self.asked.recipe))

    @property
    def contexts_needed(self) -> int:
        """How many contexts the recipe's amount takes; about, where they are not built."""
        if self.built is not None:
            return int(self.built.manifest["documents"])
        recipe = self.asked.recipe
        kept = self.tokens * (1 - self.dropped) / len(self.lengths)
        each = kept if recipe.unit == "tokens" else 1
        return round(recipe.amount / each) if each else 0

    def rows_needed(self, part: int) -> int:
        """How many rows of a part it takes."""
        if self.built is not None or not self.sample.read[part]:
            return self.sample.rows[part]
        times, skip = self.contexts_needed / len(self.lengths), self.sample.skips[part]
        return skip + round((self.sample.rows[part] - skip) * times)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        recipe, names = self.asked.recipe, self.config.parts_of(self.asked.text)
        return {
            "text": self.asked.text,
            "model": self.asked.model,
            "use": self.asked.use,
            "built": None if self.built is None else str(self.built.folder),
            "contexts": len(self.lengths),
            "lengths": self.lengths,
            "context_tokens": recipe.context_tokens,
            "full": self.full,
            "padding": self.padding,
            "begins": {self.name(id_): share for id_, share in self.begins},
            "special_tokens": {self.name(id_): share for id_, share in self.special.items()},
            "dropped": self.dropped,
            "amount": recipe.amount,
            "unit": recipe.unit,
            "contexts_needed": self.contexts_needed,
            "ended": self.sample.ended,
            "left_out": list(self.sample.left_out),
            "parts": [
                {
                    "text": name,
                    "layout": source.layout,
                    "tokens": self.tokens_of(part),
                    "rows_needed": self.rows_needed(part),
                    "rows_a_context": self.rows_a_context(part),
                }
                for part, (name, source) in enumerate(zip(names, recipe.sources, strict=True))
            ],
            "samples": [self.decoded(index) for index in self.shown()],
        }

    def rows_a_context(self, part: int) -> float | None:
        """How many rows of a part a context takes; None if none of it was read."""
        read = self.sample.read[part]
        return (self.sample.rows[part] - self.sample.skips[part]) / read if read else None

    def tokens_of(self, part: int) -> int:
        """The tokens of a part's contexts in the sample."""
        pairs = zip(self.sample.parts, self.lengths, strict=True)
        return sum(length for place, length in pairs if place == part)

    def shown(self) -> list[int]:
        """The contexts to show: the first of each part, and then the next ones."""
        firsts = [self.sample.parts.index(part) for part in sorted(set(self.sample.parts))]
        others = [at for at in range(len(self.lengths)) if at not in firsts]
        return sorted([*firsts, *others][:SHOWN])

    def decoded(self, at: int) -> str:
        """A context as text: its beginning and its end, with special tokens, on one line."""
        text = self.tokenizer.decode(self.sample.contexts[at].tolist(), skip_special_tokens=False)
        if len(text) > BEGINNING + END:
            text = f"{text[:BEGINNING]} ... {text[-END:]}"
        return text.replace("\n", "\\n")

    def name(self, id_: int) -> str:
        """A token and its id."""
        return f"{self.tokenizer.decode([id_])!r} ({id_})"
