"""Text to token shards. Either each document is a context, with the tokenizer's own special tokens
and cut at the context's length; or documents are packed end to end into contexts of equal length,
as in SAE Bench's core evaluation. Empty documents are left out. Runs on the CPU and may need the
network.
"""

import itertools
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi
from transformers import PreTrainedTokenizerBase

from saemake import evaluation
from saemake.base import progress
from saemake.base.errors import SaemakeError, first_line
from saemake.base.store import Store, sha256
from saemake.config.config import Config
from saemake.config.sections import Text
from saemake.hub import FAILURES, every_row, patiently, pinned, reached
from saemake.paths.artifacts import FetchedFile, TokensFile
from saemake.recipes.kinds import TokensRecipe
from saemake.text import shards

DOCUMENTS_AT_ONCE = 1000
SHARD_TOKENS = 2**24


# The text's row in which a document or context ends, and its token ids.
Document = tuple[int, np.ndarray]


def make(
    config: Config,
    model: str,
    use: str,
    recipe: TokensRecipe,
    tokenizer: PreTrainedTokenizerBase,
    store: Store,
    skip: int,
) -> None:
    """Tokenise the text that a model is trained or evaluated on (see recipes.tokens_recipe) into
    the store, without the first `skip` rows of the text.

    Raises SaemakeError if the text cannot be reached, or is too short; the message says how short.
    """
    text_name = config.text_of(model, use)
    text = config.texts[text_name]
    label = f"tokens {model} {use}"
    target = TokensFile(model, use)
    revision = _resolve(text, target, store.beside("revisions"))
    specials = special_tokens(tokenizer)
    if recipe.prepend_bos and specials["bos"] is None:
        raise SaemakeError(
            f"config key 'models.{model}.prepend_bos' is true, but the tokenizer has neither BOS"
            " nor an EOS to use in its place; remove the key"
        )
    dropped = dropped_ids(tokenizer, recipe)
    rows = _documents(config, text, recipe, revision, target, skip)
    if recipe.layout == "documents":
        documents = _tokenised(rows, tokenizer, recipe.context_tokens)
        if recipe.prepend_bos:
            documents = _begun_with(documents, specials["bos"], recipe.context_tokens)
    else:
        whole = _tokenised(rows, tokenizer, None)
        documents = packed(whole, recipe.context_tokens, specials["bos"], tokenizer.bos_token_id)
    with store.entry(recipe.hash) as folder:
        counted = Counted(dropped)
        enough = _enough(documents, recipe, label, counted)
        counts = _write(folder, enough, len(tokenizer))
        _check_enough(config, model, use, text_name, recipe, counts, counted)
        manifest = {
            "text_revision": revision,
            "recipe_hash": recipe.hash,
            "special_tokens": specials,
            **counts,
            **({"dropped_ids": dropped} if recipe.dropped else {}),
        }
        (folder / shards.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The ids of BOS, EOS and padding. If the tokenizer lacks BOS or padding, EOS takes its place,
    as in TransformerLens, on which SAE Bench runs; None if there is no EOS either. `notes` says
    so."""
    eos = tokenizer.eos_token_id
    ids = {"bos": tokenizer.bos_token_id, "eos": eos, "pad": tokenizer.pad_token_id}
    notes = [] if eos is not None else ["the tokenizer has no EOS"]
    for name in ("bos", "pad"):
        if ids[name] is None:
            ids[name] = eos
            instead = "none is used" if eos is None else f"EOS ({eos}) stands for it"
            notes.append(f"the tokenizer has no {name.upper()}: {instead}")
    return {**ids, "notes": notes}


def dropped_ids(tokenizer: PreTrainedTokenizerBase, recipe: TokensRecipe) -> list[int]:
    """The ids that the recipe drops, sorted: BOS, or the id used in its place, and for `special`
    all special tokens of the tokenizer."""
    bos = special_tokens(tokenizer)["bos"]
    ids = set(tokenizer.all_special_ids if "special" in recipe.dropped else [])
    if recipe.dropped and bos is not None:
        ids.add(bos)
    return sorted(ids)


class Counted:
    """Counts the tokens whose ids are not dropped."""

    def __init__(self, dropped: list[int]) -> None:
        self.dropped = np.array(dropped, dtype=np.uint32)
        self.tokens = 0

    def add(self, ids: np.ndarray) -> int:
        """Add the tokens of a document that count. Returns how many they are."""
        tokens = len(ids)
        if len(self.dropped):
            tokens -= int(np.isin(ids, self.dropped).sum())
        self.tokens += tokens
        return tokens


def packed(
    documents: Iterator[Document], length: int, bos: int | None, own_bos: int | None
) -> Iterator[Document]:
    """Documents end to end in contexts of `length` tokens, uint32. Each context and each document
    begins with `bos`, as in SAELens's concat_and_batch_sequences. If a document already begins with
    `own_bos`, that token is removed first. A last context that is not full is left out."""
    parts: list[np.ndarray] = []
    size = 0
    begin = np.array([] if bos is None else [bos], dtype=np.uint32)
    for row, ids in documents:
        start = 1 if own_bos is not None and ids[0] == own_bos else 0
        while start < len(ids):
            prefix = begin[:0] if ids[start] == bos else begin
            piece = ids[start : start + max(length - size - len(prefix), 0)]
            parts += [prefix, piece]
            size += len(prefix) + len(piece)
            start += len(piece)
            if size == length:
                yield row, np.concatenate(parts)
                parts, size = [], 0


def _resolve(text: Text, target: TokensFile, revisions: Store) -> str | None:
    """The commit that the text's revision names. None for a local text."""
    hub = text.hub
    if hub is None:
        return None

    def commit(revision: str) -> str:
        return patiently(lambda: HfApi().dataset_info(hub, revision=revision)).sha

    with _reached(text, target):
        return pinned(revisions, "dataset", hub, text.revision, commit)


def _reached(text: Text, target: TokensFile) -> AbstractContextManager[None]:
    if text.hub is None:
        return nullcontext()
    otherwise = (
        f"where there is a network, type `saemake build {FetchedFile(target.model)}` or `snakemake"
        f" {target}`, then run the same command again"
    )
    return reached(
        f"dataset '{text.hub}'",
        f"datasets/{text.hub}",
        text.revision,
        otherwise,
        also_refused=(DatasetNotFoundError,),
    )


def _documents(
    config: Config,
    text: Text,
    recipe: TokensRecipe,
    revision: str | None,
    target: TokensFile,
    skip: int,
) -> Iterator[tuple[int, str]]:
    """The rows and texts of the documents that are not empty, in the order of the text. If the
    recipe shuffles, only the order of the text's files changes, as in SAELens."""
    place = text.hub or str(config.path_of(text))
    with _reached(text, target):
        try:
            rows = patiently(
                lambda: load_dataset(
                    place, text.subset, split=recipe.split, revision=revision, streaming=True
                ),
                was_reached=True,
            )
        except (*FAILURES, DatasetNotFoundError):  # some are subclasses of FileNotFoundError
            raise
        except (ValueError, FileNotFoundError) as error:
            raise SaemakeError(
                f"text {place}, split '{recipe.split}': {first_line(error)}"
            ) from None
        if recipe.shuffle_seed is not None:
            # With a buffer of one row and one file, only the order of the files changes.
            rows = rows.shuffle(seed=recipe.shuffle_seed, buffer_size=1, max_buffer_input_shards=1)
        for index, row in enumerate(every_row(rows.skip(skip)), start=skip):
            if not isinstance(row.get(recipe.column), str):
                raise SaemakeError(
                    f"text {place}: a document has no text in column '{recipe.column}', only"
                    f" {', '.join(row)}; set the text's 'column'"
                )
            if row[recipe.column]:
                yield index, row[recipe.column]


def _tokenised(
    documents: Iterator[tuple[int, str]],
    tokenizer: PreTrainedTokenizerBase,
    context_tokens: int | None,
) -> Iterator[Document]:
    """The token ids of each document that has any, cut at `context_tokens` if given. In uint32,
    which takes a tenth of a list's memory."""
    cut = {"truncation": True, "max_length": context_tokens} if context_tokens else {}
    while batch := list(itertools.islice(documents, DOCUMENTS_AT_ONCE)):
        encoded = tokenizer([text for _, text in batch], **cut, verbose=False)
        for (row, _), ids in zip(batch, encoded["input_ids"], strict=True):
            if ids:
                yield row, np.array(ids, dtype=np.uint32)


def _begun_with(documents: Iterator[Document], bos: int, length: int) -> Iterator[Document]:
    """The documents, each beginning with BOS and cut at `length` tokens."""
    begin = np.array([bos], dtype=np.uint32)
    for row, ids in documents:
        yield row, ids if ids[0] == bos else np.concatenate([begin, ids])[:length]


def _enough(
    documents: Iterator[Document], recipe: TokensRecipe, label: str, counted: "Counted"
) -> Iterator[Document]:
    """Documents until the recipe's number of tokens, or of documents, is reached."""
    amount = 0
    with progress.bar(recipe.amount, label, recipe.unit[:3]) as bar:
        for row, document in documents:
            yield row, document
            tokens = counted.add(document)
            added = tokens if recipe.unit == "tokens" else 1
            amount += added
            bar.update(added)
            if amount >= recipe.amount:
                return


def _write(folder: Path, documents: Iterator[Document], vocabulary: int) -> dict[str, Any]:
    """Write shards. Returns their part of the manifest: the shards, the numbers of documents and
    tokens, and how many rows of the text were read."""
    listed: list[dict[str, Any]] = []
    rows = 0
    for index, group in enumerate(_by_shard(documents)):
        path = folder / f"shard_{index:05d}.safetensors"
        path.write_bytes(shards.pack([document for _, document in group], vocabulary))
        rows = group[-1][0] + 1
        listed.append(
            {
                "file": path.name,
                "documents": len(group),
                "tokens": sum(len(document) for _, document in group),
                "sha256": sha256(path),
            }
        )
    return {
        "documents": sum(shard["documents"] for shard in listed),
        "tokens": sum(shard["tokens"] for shard in listed),
        "rows_read": rows,
        "shards": listed,
    }


def _by_shard(documents: Iterator[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    size = 0
    for row, document in documents:
        group.append((row, document))
        size += len(document)
        if size >= SHARD_TOKENS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _check_enough(
    config: Config,
    model: str,
    use: str,
    text: str,
    recipe: TokensRecipe,
    counts: dict[str, Any],
    counted: Counted,
) -> None:
    if (counted.tokens if recipe.unit == "tokens" else counts["documents"]) >= recipe.amount:
        return
    unit = recipe.unit if recipe.layout == "documents" else "contexts"
    after = ", after the documents trained on" if recipe.after else ""
    dropped = counts["tokens"] - counted.tokens
    of_dropped = f" ({dropped:,} of them of dropped ids)" if dropped else ""
    gave = (
        f"text '{text}' (split '{recipe.split}'{after})"
        f" gave {counts['tokens']:,} tokens{of_dropped} in {counts['documents']:,}"
        f" {'documents' if recipe.layout == 'documents' else 'contexts'}, fewer than the"
        f" {recipe.amount:,} {unit}"
    )
    if use != "train":
        settings, key = config.evaluation_of(model, use), f"models.{model}.evaluations.{use}"
        way_out = evaluation.on_text(use).too_little_text(settings, key, counts["documents"])
        raise SaemakeError(f"{gave} of {way_out}")
    training = config.training_of(model)
    norm_over_median, reserve = training.drop.norm_over_median, training.drop.reserve
    kept = counted.tokens if norm_over_median is None else int(counted.tokens / (1 + reserve))
    fits = kept - training.norm_batches * training.batch_tokens
    asking = f"models.{model}.train_tokens and training.norm_batches"
    if norm_over_median is not None:
        asking += f", with training.drop.reserve {reserve:g},"
    raise SaemakeError(
        f"{gave} that {asking} ask for; set models.{model}.train_tokens to at most {max(fits, 0):,}"
    )
