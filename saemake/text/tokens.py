"""Text to token shards: each document one context, with the tokenizer's own special tokens, cut at
the context's length; what is empty is left out. Runs on the CPU and may need the network.
"""

import itertools
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset
from huggingface_hub import HfApi
from transformers import PreTrainedTokenizerBase

from saemake import progress
from saemake.config import Config, Text
from saemake.errors import SaemakeError, first_line
from saemake.hub import FAILURES, reached
from saemake.recipes import TokensRecipe
from saemake.store import Store, sha256
from saemake.text import shards

DOCUMENTS_AT_ONCE = 1000
SHARD_TOKENS = 2**24


def make(
    config: Config,
    model: str,
    split: str,
    recipe: TokensRecipe,
    tokenizer: PreTrainedTokenizerBase,
    store: Store,
) -> None:
    """Tokenise a split ('train' or 'evaluation') of the model's text into the store.

    Raises SaemakeError where the text cannot be reached or gives too little, saying how much.
    """
    text = config.texts[config.models[model].text]
    label = f"tokens {model} {split}"
    target = f"results/{model}/tokens/{split}/manifest.json"
    revision = _resolve(text, target)
    rows = _documents(config, text, recipe, revision, target)
    documents = _tokenised(rows, tokenizer, recipe)
    with store.entry(recipe.hash) as folder:
        counts = _write(folder, _enough(documents, recipe, label), len(tokenizer))
        _check_enough(config, model, split, recipe, counts)
        manifest = {
            "text_revision": revision,
            "recipe_hash": recipe.hash,
            **counts,
        }
        (folder / shards.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _resolve(text: Text, target: str) -> str | None:
    """The commit that the text's revision names today; None for a local text."""
    if text.hub is None:
        return None
    with _reached(text, target):
        return HfApi().dataset_info(text.hub, revision=text.revision).sha


def _reached(text: Text, target: str) -> AbstractContextManager[None]:
    if text.hub is None:
        return nullcontext()
    otherwise = (
        f"type `snakemake {target}` where there is a network, and bring results/ along (the jobs"
        " after it need none)"
    )
    return reached(f"dataset '{text.hub}'", f"datasets/{text.hub}", text.revision, otherwise)


def _documents(
    config: Config, text: Text, recipe: TokensRecipe, revision: str | None, target: str
) -> Iterator[str]:
    """The text's documents in its own order, without the empty ones."""
    place = text.hub or str(config.path_of(text))
    with _reached(text, target):
        try:
            rows = load_dataset(
                place, text.subset, split=recipe.split, revision=revision, streaming=True
            )
        except FAILURES:  # some are kinds of FileNotFoundError
            raise
        except (ValueError, FileNotFoundError) as error:
            raise SaemakeError(
                f"text {place}, split '{recipe.split}': {first_line(error)}"
            ) from None
        for row in rows:
            if not isinstance(row.get(recipe.column), str):
                raise SaemakeError(
                    f"text {place}: a document has no text in column '{recipe.column}', only"
                    f" {', '.join(row)}; set the text's 'column'"
                )
            if row[recipe.column]:
                yield row[recipe.column]


def _tokenised(
    documents: Iterator[str], tokenizer: PreTrainedTokenizerBase, recipe: TokensRecipe
) -> Iterator[np.ndarray]:
    """The token ids of each document that has any; uint32, a tenth of the memory of a list."""
    while batch := list(itertools.islice(documents, DOCUMENTS_AT_ONCE)):
        encoded = tokenizer(batch, truncation=True, max_length=recipe.context_tokens)
        yield from (np.array(ids, dtype=np.uint32) for ids in encoded["input_ids"] if ids)


def _enough(
    documents: Iterator[np.ndarray], recipe: TokensRecipe, label: str
) -> Iterator[np.ndarray]:
    """Documents until the recipe's tokens, or its documents, are reached."""
    done = 0
    with progress.bar(recipe.amount, label, recipe.unit[:3]) as bar:
        for document in documents:
            yield document
            more = len(document) if recipe.unit == "tokens" else 1
            done += more
            bar.update(more)
            if done >= recipe.amount:
                return


def _write(folder: Path, documents: Iterator[np.ndarray], vocabulary: int) -> dict[str, Any]:
    listed: list[dict[str, Any]] = []
    for index, group in enumerate(_by_shard(documents)):
        path = folder / f"shard_{index:05d}.safetensors"
        path.write_bytes(shards.pack(group, vocabulary))
        listed.append(
            {
                "file": path.name,
                "documents": len(group),
                "tokens": sum(map(len, group)),
                "sha256": sha256(path),
            }
        )
    return {
        "documents": sum(shard["documents"] for shard in listed),
        "tokens": sum(shard["tokens"] for shard in listed),
        "shards": listed,
    }


def _by_shard(documents: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    group: list[np.ndarray] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document)
        if size >= SHARD_TOKENS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _check_enough(
    config: Config, model: str, split: str, recipe: TokensRecipe, counts: dict[str, Any]
) -> None:
    if counts[recipe.unit] >= recipe.amount:
        return
    gave = (
        f"text '{config.models[model].text}' (split '{recipe.split}') gave {counts['tokens']:,}"
        f" tokens in {counts['documents']:,} documents, fewer than the {recipe.amount:,}"
        f" {recipe.unit}"
    )
    if split == "evaluation":
        raise SaemakeError(
            f"{gave} of models.{model}.evaluation_documents; set that to at most"
            f" {counts['documents']:,}"
        )
    training = config.training_of(model)
    fits = counts["tokens"] - training.norm_batches * training.batch_tokens
    raise SaemakeError(
        f"{gave} that models.{model}.train_tokens and training.norm_batches ask for; set"
        f" models.{model}.train_tokens to at most {max(fits, 0):,}"
    )
