"""The first contexts of a text: of shards that are built, or tokenised for a look."""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from huggingface_hub import snapshot_download
from transformers import PreTrainedTokenizerBase

from saemake.base.store import Store
from saemake.config.config import Config
from saemake.hub import patiently, reached
from saemake.inputs import weights
from saemake.inputs.tokens import Reader, rows_read
from saemake.llm.loading import load_tokenizer
from saemake.llm.weights import Weights
from saemake.paths.artifacts import TokensFile
from saemake.paths.names import STORE
from saemake.recipes.kinds import TokensRecipe
from saemake.text.shards import Tokens

# What a tokenizer is read from. Not the weights: a look must not fetch them.
TOKENIZER_FILES = ["config.json", "tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt"]
TOKENIZER_FILES += ["*.model", "*.jinja"]


@dataclass(frozen=True)
class Sample:
    """Contexts of a text: the ids of each (uint16 or uint32) and of which part of a mixture it is.
    `rows` is up to which row each part was read for `read` contexts of it, from the row `skips` on;
    all that the recipe asks for where the text is built, else as many as are here. `ended` says
    that the text has no more. `left_out` has lines on rows that gave nothing."""

    contexts: list[np.ndarray]
    parts: list[int]
    skips: list[int]
    rows: list[int]
    read: list[int]
    ended: bool = False
    left_out: Sequence[str] = ()


def of_built(tokens: Tokens, recipe: TokensRecipe, skips: Sequence[int], most: int) -> Sample:
    """The first contexts of shards, made after `skips` rows of each part. Raises SaemakeError if
    they are damaged, or of another recipe."""
    tokens.check(recipe.hash)
    contexts = list(itertools.islice(tokens.documents(), most))
    read = [part["documents"] for part in tokens.manifest.get("parts", [tokens.manifest])]
    parts = list(itertools.islice(_rounds(recipe), len(contexts)))
    return Sample(contexts, parts, _each(recipe, skips), rows_read(tokens.manifest), read)


def of_text(reader: Reader, skips: Sequence[int], most: int) -> Sample:
    """The first contexts of a text after `skips` rows of each part. Raises SaemakeError if it
    cannot be read."""
    mixture = reader.contexts(skips)
    found = list(itertools.islice(mixture, most))
    last = dict.fromkeys(range(len(reader.sources)), -1)
    last.update({context.part: context.row for context in found})
    parts = [context.part for context in found]
    return Sample(
        [context.ids for context in found],
        parts,
        _each(reader.recipe, skips),
        [row + 1 for row in last.values()],
        [parts.count(part) for part in last],
        mixture.ran_out is not None,
        reader.left_out(),
    )


def _each(recipe: TokensRecipe, skips: Sequence[int]) -> list[int]:
    return list(skips) or [0] * len(recipe.sources)


def _rounds(recipe: TokensRecipe) -> Iterator[int]:
    """The part of each context, in order."""
    rounds = [part.contexts for part in recipe.mix] or [1]
    return itertools.cycle([place for place, count in enumerate(rounds) for _ in range(count)])


def built(recipe: TokensRecipe, target: TokensFile) -> Tokens | None:
    """The shards of a recipe: under results/, or in the store. None if there are none."""
    for manifest in (Path(str(target)), STORE / "tokens" / recipe.hash / "manifest.json"):
        if manifest.is_file() and (tokens := Tokens(manifest)).manifest.get("recipe_hash") == (
            recipe.hash
        ):
            return tokens
    return None


@contextmanager
def store() -> Iterator[Store]:
    """The store's tokens, beside which commits are kept; where saemake has not built yet, a store
    that is gone after the block."""
    if STORE.is_dir():
        yield Store(STORE, "tokens")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Store(Path(folder), "tokens")


def tokenizer(config: Config, name: str) -> PreTrainedTokenizerBase:
    """A model's tokenizer: of a model on this machine, else fetched without the weights. Raises
    SaemakeError if it cannot be reached."""
    model = config.models[name]
    if model.hub is None or weights.cached(config, name):
        return load_tokenizer(weights.locate(config, name, model.hub and model.revision))
    hub = model.hub
    with tempfile.TemporaryDirectory() as folder:
        with reached(f"model '{hub}'", hub, model.revision, "run this where there is a network"):
            patiently(
                lambda: snapshot_download(
                    hub,
                    revision=model.revision,
                    allow_patterns=TOKENIZER_FILES,
                    local_dir=folder,
                )
            )
        return load_tokenizer(Weights(name, Path(folder), model.gguf_file, model.dtype))
