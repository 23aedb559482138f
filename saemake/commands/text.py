"""Show what a model reads of a text: samples with special tokens, lengths, padding, how far.

NAME is a model of the config, or a text. It looks at the tokens that are built, if there are any.
Else it tokenises the first contexts, which may use the network, and keeps nothing.
"""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from saemake.base.errors import SaemakeError, nearest
from saemake.commands.look import TRAIN, Asked, Look
from saemake.config.config import Config
from saemake.inputs import sampling
from saemake.inputs.sampling import Sample
from saemake.inputs.tokens import Reader, special_tokens
from saemake.jobs.inputs import rows_trained_on
from saemake.paths.artifacts import TokensFile
from saemake.recipes.inputs import tokens_recipe, training_tokens
from saemake.recipes.kinds import TextRecipe
from saemake.text.shards import Tokens

# Contexts that are looked at.
CONTEXTS = 1000
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
        print("\n".join(InWords(look).lines()))
    return 0


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


class InWords:
    """A look in words."""

    def __init__(self, look: Look) -> None:
        self.look = look

    def lines(self) -> list[str]:
        """All of it on about a screen."""
        asked = self.look.asked
        purpose = "train" if asked.use == TRAIN else f"be judged by {asked.use}"
        rows = [
            ("text", f"{asked.text}, as {asked.model} reads it to {purpose}: {self.look.where}"),
            *self._sources(),
            ("tokenizer", self._special_tokens()),
            ("contexts", self._contexts()),
            ("padding", f"{_percent(self.look.padding)} of positions, in the LM's batches"),
            ("begin", self._begins()),
            ("special", self._special()),
            ("dropped", self._dropped()),
            ("rows", self._rows()),
            *(("left out", line) for line in self.look.sample.left_out),
            ("reach", self._reach()),
        ]
        shown = [(f"context {at + 1:,}", self.look.decoded(at)) for at in self.look.shown()]
        columns = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
        width = max(min(columns, WIDTH), 60)
        return [line for row in [*rows, *shown] for line in _wrapped(*row, width)]

    def _sources(self) -> Iterator[tuple[str, str]]:
        recipe, names = self.look.asked.recipe, self.look.config.parts_of(self.look.asked.text)
        for part, (name, source) in enumerate(zip(names, recipe.sources, strict=True)):
            said = _source(self.look.config, name, source)
            if recipe.mix:
                share = _percent(self.look.tokens_of(part) / self.look.tokens)
                said = f"{recipe.mix[part].contexts} a round, {share} of tokens: {said}"
            yield (name if recipe.mix else "from", said)

    def _special_tokens(self) -> str:
        ids = special_tokens(self.look.tokenizer)
        named = [
            f"{name.upper()} {self.look.name(ids[name])}"
            for name in ("bos", "eos", "pad")
            if ids[name] is not None
        ]
        template = "a chat template" if self.look.tokenizer.chat_template else "no chat template"
        return "; ".join([", ".join([*named, template]), *ids["notes"]])

    def _contexts(self) -> str:
        lengths = self.look.lengths
        return (
            f"of {min(lengths):,} to {max(lengths):,} tokens, median {int(np.median(lengths)):,};"
            f" {_percent(self.look.full)} are full ({self.look.asked.recipe.context_tokens:,})"
        )

    def _begins(self) -> str:
        first = [
            f"{_percent(share)} with {self.look.name(id_)}" for id_, share in self.look.begins[:3]
        ]
        return ", ".join(first) + (", ..." if len(self.look.begins) > len(first) else "")

    def _special(self) -> str:
        shares = [
            f"{self.look.name(id_)} {_percent(share)}" for id_, share in self.look.special.items()
        ]
        return (", ".join(shares) + " of tokens") if shares else "none"

    def _dropped(self) -> str:
        asked = self.look.asked
        drop = (
            self.look.config.training_of(asked.model).drop
            if asked.use == TRAIN
            else self.look.config.evaluation_of(asked.model, asked.use).drop
        )
        if not drop.on:
            return "nothing"
        ids = f"{_percent(self.look.dropped)} of tokens by their ids ({', '.join(drop.kinds)})"
        norms = "by norm: known only when the LM runs"
        said = [*([ids] if drop.kinds else []), *([norms] if drop.norm_over_median else [])]
        return "; ".join(said)

    def _rows(self) -> str:
        names = self.look.config.parts_of(self.look.asked.text)
        said = []
        for part, name in enumerate(names):
            rows = self.look.rows_a_context(part)
            if rows is None:
                continue
            tokens = self.look.tokens_of(part) / max(self.look.sample.parts.count(part), 1) / rows
            whose = f"{name}: " if len(names) > 1 else ""
            said.append(f"{whose}{rows:.3g} a context, about {tokens:,.0f} tokens of each are read")
        return "; ".join(said)

    def _reach(self) -> str:
        asked, recipe = self.look.asked, self.look.asked.recipe
        names = self.look.config.parts_of(asked.text)
        about = "" if self.look.built else "about "
        rows = ", ".join(
            f"{about}{self.look.rows_needed(part):,} rows" + (f" of {name}" if recipe.mix else "")
            for part, name in enumerate(names)
        )
        said = f"{recipe.amount:,} contexts are read, up to {rows}"
        if recipe.unit == "tokens":
            contexts = f"{about}{self.look.contexts_needed:,} contexts"
            said = f"{recipe.amount:,} tokens are read: {contexts}, up to {rows}"
        short = self.look.built is None and self.look.sample.ended
        enough = self.look.contexts_needed and self.look.contexts_needed <= len(self.look.lengths)
        return (
            f"{said}, but the text has no more than this sample" if short and not enough else said
        )


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
