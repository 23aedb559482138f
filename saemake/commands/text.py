"""Show what a model reads of a text: samples with special tokens, lengths, padding, how far.

NAME is a model of the config, or a text. It looks at the tokens that are built, if there are any.
Else it tokenises the first contexts, which may use the network, and keeps nothing.
"""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from saemake import evaluation
from saemake.base.errors import SaemakeError, nearest
from saemake.config.config import Config
from saemake.inputs import sampling
from saemake.inputs.sampling import Sample
from saemake.inputs.tokens import Reader, dropped_ids, special_tokens
from saemake.jobs.inputs import rows_trained_on
from saemake.paths.artifacts import TokensFile
from saemake.plan.text import counted_lengths
from saemake.recipes.inputs import tokens_recipe, training_tokens
from saemake.recipes.kinds import TextRecipe, TokensRecipe
from saemake.text.shards import WINDOW, Tokens, window_batches

TRAIN = "train"
# Contexts that are looked at, and those that are shown.
CONTEXTS, SHOWN = 1000, 3
# Characters of a shown context: of its beginning and of its end.
BEGINNING, END = 300, 80
# Of a terminal that is wider, and of a file or a pipe.
WIDTH = 100
LABEL = 11


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a model, or a text")
    parser.add_argument(
        "--use", default=TRAIN, metavar="USE", help="train (default), or an evaluation"
    )
    parser.add_argument("--model", metavar="MODEL", help="who reads the text that NAME is")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(config: Config, options: argparse.Namespace) -> int:
    asked = _asked(config, options.name, options.use, options.model)
    tokenizer = sampling.tokenizer(config, asked.model)
    look = Look(config, asked, tokenizer, *_sample(config, asked, tokenizer))
    if options.json:
        print(json.dumps(look.as_json(), indent=1))
    else:
        print("\n".join(look.lines()))
    return 0


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


def _asked(config: Config, name: str, use: str, model: str | None) -> Asked:
    uses = [TRAIN, *config.text_evaluations]
    if use not in uses:
        raise SaemakeError(f"--use {use}: no such use; {nearest(use, uses)}")
    if name not in config.models and name not in config.texts:
        known = nearest(name, [*config.models, *config.texts])
        raise SaemakeError(f"no model or text '{name}' in the config; {known}")
    reader = model or (name if name in config.models else _reader(config, name, use))
    if reader not in config.models:
        raise SaemakeError(f"--model {reader}: no such model; {nearest(reader, config.models)}")
    read = config.text_of(reader, use)
    text = read if name in config.models else name
    if text == read:
        return Asked(text, reader, use, tokens_recipe(config, reader, use))
    if use != TRAIN:
        raise SaemakeError(f"{use} of {reader} reads '{read}', not '{text}'; leave out --use")
    return Asked(text, reader, use, training_tokens(config, reader, text))


def _reader(config: Config, text: str, use: str) -> str:
    """A model that reads a text for a use, or a mixture with it."""
    for name in config.models:
        read = config.text_of(name, use)
        if text == read or (use == TRAIN and text in config.parts_of(read)):
            return name
    purpose = "trains on it" if use == TRAIN else f"is judged on it by {use}"
    raise SaemakeError(
        f"text '{text}': no model of the config {purpose}; say whose tokenizer reads it, such as"
        f" `saemake text {text} --model {next(iter(config.models))}`"
    )


def _sample(
    config: Config, asked: Asked, tokenizer: PreTrainedTokenizerBase
) -> tuple[Sample, Tokens | None, str]:
    """A sample, the shards that it is of (if any), and a sentence on where it comes from."""
    training = TokensFile(asked.model, TRAIN)
    trained = None
    if asked.recipe.after is not None:
        trained = sampling.built(tokens_recipe(config, asked.model, TRAIN), training)
    skips = rows_trained_on(config, asked.model, asked.use, trained) if trained else []
    built = sampling.built(asked.recipe, asked.target)
    if built is not None:
        sample = sampling.of_built(built, asked.recipe, skips, CONTEXTS)
        return sample, built, f"built ({built.folder}); the shares are those of {_count(sample)}"
    note = "not built; a sample of "
    if asked.recipe.after is not None and trained is None:
        note = f"not built, nor {training}, after which it begins; a sample from the text's"
        note += " beginning, of "
    with sampling.store() as store:
        reader = Reader(config, asked.text, asked.recipe, tokenizer, store, asked.target)
        sample = sampling.of_text(reader, skips, CONTEXTS)
    if not sample.contexts:
        said = "; ".join(sample.left_out) or "it is empty"
        raise SaemakeError(f"text '{asked.text}' gives no context: {said}")
    return sample, None, note + _count(sample)


def _count(sample: Sample) -> str:
    return f"the first {len(sample.contexts):,} contexts"


class Look:
    """What a sample shows."""

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
            lengths = _alike(lengths, batch)
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
        """All that is shown, as plain values; shares are between 0 and 1."""
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
            "begins": {self._name(id_): share for id_, share in self.begins},
            "special_tokens": {self._name(id_): share for id_, share in self.special.items()},
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
                    "tokens": self._tokens_of(part),
                    "rows_needed": self.rows_needed(part),
                    "rows_a_context": self._rows_a_context(part),
                }
                for part, (name, source) in enumerate(zip(names, recipe.sources, strict=True))
            ],
            "samples": [self._decoded(index) for index in self._shown()],
        }

    def lines(self) -> list[str]:
        """All of it on about a screen."""
        asked = self.asked
        purpose = "train" if asked.use == TRAIN else f"be judged by {asked.use}"
        rows = [
            ("text", f"{asked.text}, as {asked.model} reads it to {purpose}: {self.where}"),
            *self._sources(),
            ("tokenizer", self._special_tokens()),
            ("contexts", self._contexts()),
            ("padding", f"{_percent(self.padding)} of positions, in the LM's batches"),
            ("begin", self._begins()),
            ("special", self._special()),
            ("dropped", self._dropped()),
            ("rows", self._rows()),
            *(("left out", line) for line in self.sample.left_out),
            ("reach", self._reach()),
        ]
        shown = [(f"context {at + 1:,}", self._decoded(at)) for at in self._shown()]
        columns = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
        width = max(min(columns, WIDTH), 60)
        return [line for row in [*rows, *shown] for line in _wrapped(*row, width)]

    def _sources(self) -> Iterator[tuple[str, str]]:
        recipe, names = self.asked.recipe, self.config.parts_of(self.asked.text)
        for part, (name, source) in enumerate(zip(names, recipe.sources, strict=True)):
            said = _source(self.config, name, source)
            if recipe.mix:
                share = _percent(self._tokens_of(part) / self.tokens)
                said = f"{recipe.mix[part].contexts} a round, {share} of tokens: {said}"
            yield (name if recipe.mix else "from", said)

    def _special_tokens(self) -> str:
        ids = special_tokens(self.tokenizer)
        named = [
            f"{name.upper()} {self._name(ids[name])}"
            for name in ("bos", "eos", "pad")
            if ids[name] is not None
        ]
        template = "a chat template" if self.tokenizer.chat_template else "no chat template"
        return "; ".join([", ".join([*named, template]), *ids["notes"]])

    def _contexts(self) -> str:
        middle = int(np.median(self.lengths))
        return (
            f"of {min(self.lengths):,} to {max(self.lengths):,} tokens, median {middle:,};"
            f" {_percent(self.full)} are full ({self.asked.recipe.context_tokens:,})"
        )

    def _begins(self) -> str:
        first = [f"{_percent(share)} with {self._name(id_)}" for id_, share in self.begins[:3]]
        return ", ".join(first) + (", ..." if len(self.begins) > len(first) else "")

    def _special(self) -> str:
        shares = [f"{self._name(id_)} {_percent(share)}" for id_, share in self.special.items()]
        return (", ".join(shares) + " of tokens") if shares else "none"

    def _dropped(self) -> str:
        asked = self.asked
        drop = (
            self.config.training_of(asked.model).drop
            if asked.use == TRAIN
            else self.config.evaluation_of(asked.model, asked.use).drop
        )
        if not drop.on:
            return "nothing"
        ids = f"{_percent(self.dropped)} of tokens by their ids ({', '.join(drop.kinds)})"
        norms = "by norm: known only when the LM runs"
        said = [*([ids] if drop.kinds else []), *([norms] if drop.norm_over_median else [])]
        return "; ".join(said)

    def _rows(self) -> str:
        names = self.config.parts_of(self.asked.text)
        said = []
        for part, name in enumerate(names):
            rows = self._rows_a_context(part)
            if rows is None:
                continue
            tokens = self._tokens_of(part) / max(self.sample.parts.count(part), 1) / rows
            whose = f"{name}: " if len(names) > 1 else ""
            said.append(f"{whose}{rows:.3g} a context, about {tokens:,.0f} tokens of each are read")
        return "; ".join(said)

    def _reach(self) -> str:
        asked, recipe = self.asked, self.asked.recipe
        names = self.config.parts_of(asked.text)
        about = "" if self.built else "about "
        rows = ", ".join(
            f"{about}{self.rows_needed(part):,} rows" + (f" of {name}" if recipe.mix else "")
            for part, name in enumerate(names)
        )
        unit = "tokens" if recipe.unit == "tokens" else "contexts"
        said = f"{recipe.amount:,} {unit} are read: "
        said += f"{about}{self.contexts_needed:,} contexts, up to {rows}"
        short = self.built is None and self.sample.ended
        enough = self.contexts_needed and self.contexts_needed <= len(self.lengths)
        return (
            f"{said}, but the text has no more than this sample" if short and not enough else said
        )

    def _rows_a_context(self, part: int) -> float | None:
        read = self.sample.read[part]
        return (self.sample.rows[part] - self.sample.skips[part]) / read if read else None

    def _tokens_of(self, part: int) -> int:
        pairs = zip(self.sample.parts, self.lengths, strict=True)
        return sum(length for place, length in pairs if place == part)

    def _shown(self) -> list[int]:
        """The contexts to show: the first of each part, and then the next ones."""
        firsts = [self.sample.parts.index(part) for part in sorted(set(self.sample.parts))]
        others = [at for at in range(len(self.lengths)) if at not in firsts]
        return sorted([*firsts, *others][:SHOWN])

    def _decoded(self, at: int) -> str:
        """A context as text: its beginning and its end, with special tokens, on one line."""
        text = self.tokenizer.decode(self.sample.contexts[at].tolist(), skip_special_tokens=False)
        if len(text) > BEGINNING + END:
            text = f"{text[:BEGINNING]} ... {text[-END:]}"
        return text.replace("\n", "\\n")

    def _name(self, id_: int) -> str:
        return f"{self.tokenizer.decode([id_])!r} ({id_})"


def _alike(lengths: Sequence[int], batch: int) -> list[int]:
    """The lengths in the order in which training reads the contexts."""
    size = WINDOW * batch
    windows = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return [
        here[index]
        for number, here in enumerate(windows)
        for chosen in window_batches(here, batch, number)
        for index in chosen
    ]


LAYOUTS = {
    "documents": "each document a context",
    "joined": "documents joined with EOS, after one BOS",
    "packed": "packed end to end, BOS between",
}


def _source(config: Config, name: str, source: TextRecipe) -> str:
    text = config.texts[name]
    place = text.hub or str(Path(text.place or ""))
    said = [place, *([f"subset {source.subset}"] if source.subset else [])]
    said += [f"split {source.split}", f"column {source.column}"]
    chat = []
    if source.chat is not None:
        chat = ["chats by the template"]
        if source.chat.system_prompt is not None:
            chat += [f"its system prompt taken out of {_percent(source.chat.removed)}"]
    return "; ".join([", ".join(said), *chat, LAYOUTS[source.layout]])


def _percent(share: float) -> str:
    """A share as people read it: 0.4 %, 31 %, 99.8 %."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "under 0.1 %"
    if 99.9 < percent < 100:
        return "over 99.9 %"
    digits = 0 if 10 <= percent <= 99 else 1
    return f"{percent:.{digits}f}".removesuffix(".0") + " %"


def _wrapped(label: str, words: str, width: int) -> list[str]:
    return textwrap.wrap(
        words,
        width,
        initial_indent=f"{label:<{LABEL}} ",
        subsequent_indent=" " * (LABEL + 1),
        break_on_hyphens=False,
    ) or [label]
