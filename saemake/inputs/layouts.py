"""Documents to contexts of token ids. The layouts:

- documents: each document is a context, with the tokenizer's own special tokens, cut at the
  context's length, as in dictionary_learning's demo of January 2025.
- packed: the documents' tokens end to end, in contexts of equal length. Each context and each
  document begins with BOS, as in SAELens's `concat_and_batch_sequences`.
- joined: documents joined with EOS after one BOS until they have CHARACTERS_PER_TOKEN characters
  for each token of the context, then cut, as in dictionary_learning's
  `hf_sequence_packing_dataset_to_generator`, the demo's default of May 2025.
- a mixture: so many contexts of each text in a round, as in its `hf_mixed_dataset_to_generator`.

Documents are (row, text) or (row, uint32 ids): the row of the text in which each ends.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from saemake.config.sections import CHARACTERS_PER_TOKEN

DOCUMENTS_AT_ONCE = 1000
# Documents in one call of the tokenizer have as many characters together, or the last goes beyond
# it. The tokenizer takes some 160 bytes of memory for each.
CHARACTERS_AT_ONCE = 2**22
# Longer documents are tokenised in parts of this many characters.
LONG = 2**20
# The last tokens before a cut may be other ones than without the cut.
UNSURE_TOKENS = 64

Document = tuple[int, np.ndarray]


def tokenised(
    documents: Iterator[tuple[int, str]],
    tokenizer: PreTrainedTokenizerBase,
    most: int | None,
    *,
    special: bool = True,
) -> Iterator[Document]:
    """The token ids of each document that has any, cut at `most` if given, with the special tokens
    that the tokenizer adds if `special`. In uint32, which takes a tenth of a list's memory.

    Of a document of over LONG characters only the beginning is read if `most` tokens are asked for.
    Else it is tokenised in parts, cut before spaces, so that memory stays small.
    """
    cut = {"truncation": True, "max_length": most} if most else {}
    for batch in _batches(documents):
        if len(batch) == 1 and len(batch[0][1]) > LONG:
            encoded = [_long(batch[0][1], tokenizer, most, special)]
        else:
            encoded = tokenizer(
                [text for _, text in batch], **cut, add_special_tokens=special, verbose=False
            )["input_ids"]
        for (row, _), ids in zip(batch, encoded, strict=True):
            if len(ids):
                yield row, np.array(ids, dtype=np.uint32)


def _batches(documents: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Documents that are tokenised together; one of over LONG characters alone."""
    batch: list[tuple[int, str]] = []
    characters = 0
    for row, text in documents:
        if len(text) > LONG:
            if batch:
                yield batch
            batch, characters = [], 0
            yield [(row, text)]
            continue
        batch.append((row, text))
        characters += len(text)
        if len(batch) == DOCUMENTS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _long(
    text: str, tokenizer: PreTrainedTokenizerBase, most: int | None, special: bool
) -> Sequence[int] | np.ndarray:
    def encode(part: str, **more: Any) -> Sequence[int]:
        ids: Sequence[int] = tokenizer(part, verbose=False, **more)["input_ids"]
        return ids

    if most is not None:
        beginning = text[:LONG]
        if len(encode(beginning, add_special_tokens=False)) < most + UNSURE_TOKENS:
            beginning = text
        return encode(beginning, add_special_tokens=special, truncation=True, max_length=most)
    before, after = _added(tokenizer) if special else ([], [])
    parts = (np.array(encode(part, add_special_tokens=False), np.uint32) for part in _parts(text))
    return np.concatenate([np.array(before, np.uint32), *parts, np.array(after, np.uint32)])


def _parts(text: str) -> Iterator[str]:
    """The text in parts of at most LONG characters, cut before the last space in each, if any."""
    start = 0
    while len(text) - start > LONG:
        space = text.rfind(" ", start + 1, start + LONG)
        end = space if space > start else start + LONG
        yield text[start:end]
        start = end
    yield text[start:]


def _added(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a document."""
    with_them: list[int] = tokenizer("a")["input_ids"]
    without: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    for start in range(len(with_them) - len(without) + 1):
        if with_them[start : start + len(without)] == without:
            return with_them[:start], with_them[start + len(without) :]
    return [], []


def begun_with(documents: Iterator[Document], bos: int, length: int) -> Iterator[Document]:
    """The documents, each beginning with BOS and cut at `length` tokens."""
    begin = np.array([bos], dtype=np.uint32)
    for row, ids in documents:
        yield row, ids if ids[0] == bos else np.concatenate([begin, ids])[:length]


def packed(
    documents: Iterator[Document], length: int, bos: int | None, own_bos: int | None
) -> Iterator[Document]:
    """Documents end to end in contexts of `length` tokens, uint32. Each context and each document
    begins with `bos`. If a document already begins with `own_bos`, that token is removed first. A
    last context that is not full is left out."""
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


def joined(
    documents: Iterator[tuple[int, str]], length: int, begin: str, between: str
) -> Iterator[tuple[int, str]]:
    """Texts of contexts of `length` tokens: documents with `between` between them, after `begin`,
    until they have CHARACTERS_PER_TOKEN times as many characters. A last one with fewer is left
    out."""
    samples: list[str] = []
    characters = 0
    for row, text in documents:
        samples.append(text)
        characters += len(text)
        if characters >= CHARACTERS_PER_TOKEN * length:
            yield row, begin + between.join(samples)
            samples, characters = [], 0


@dataclass(frozen=True)
class Context:
    """A context: its ids (uint32), and the row of the text `part` of a mixture in which it ends."""

    part: int
    row: int
    ids: np.ndarray


class Mixture:
    """Contexts of several texts in turn: of each as many as its number says, then again of the
    first. A single text is a mixture of one part.

    It ends when it needs a context of a part that has no more; `ran_out` is that part then.
    """

    def __init__(self, parts: Sequence[tuple[int, Iterator[Document]]]) -> None:
        self.parts = parts
        self.ran_out: int | None = None

    def __iter__(self) -> Iterator[Context]:
        while True:
            for place, (contexts, documents) in enumerate(self.parts):
                taken = 0
                for row, ids in itertools.islice(documents, contexts):
                    yield Context(place, row, ids)
                    taken += 1
                if taken < contexts:
                    self.ran_out = place
                    return
