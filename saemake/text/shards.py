"""Shards of tokens: safetensors files with `ids` (all tokens, end to end) and `lengths` (one a
document). A manifest lists them with their sha256, so that a GPU job can read without a network.
"""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from saemake.base.errors import SaemakeError, first_line
from saemake.base.store import sha256

MANIFEST = "manifest.json"


def pack(documents: Sequence[ArrayLike], vocabulary: int) -> bytes:
    """Documents as one shard; uint16 ids where the vocabulary allows, else uint32."""
    dtype = np.uint16 if vocabulary <= 2**16 else np.uint32
    ids = np.concatenate([np.asarray(document, dtype=dtype) for document in documents])
    lengths = np.asarray([np.size(document) for document in documents], dtype=np.int32)
    return save({"ids": ids, "lengths": lengths})


@dataclass(frozen=True)
class Contexts:
    """A batch of documents, padded on the right: `ids` int64 [B, L], `mask` int64 [B, L], 1 at
    tokens and 0 at padding."""

    ids: Tensor
    mask: Tensor

    @property
    def tokens(self) -> int:
        return int(self.mask.sum())

    def pinned(self) -> "Contexts":
        """The same in memory that a GPU copies from while it computes."""
        return Contexts(self.ids.pin_memory(), self.mask.pin_memory())


class Tokens:
    """The tokenised text that a manifest describes."""

    def __init__(self, manifest: Path) -> None:
        self.folder = manifest.parent
        try:
            self.manifest: dict[str, Any] = json.loads(manifest.read_text())
        except (OSError, ValueError) as error:
            raise SaemakeError(
                f"{manifest}: cannot be read ({first_line(error)}); delete it and run the same"
                " command again"
            ) from None

    def check(self, recipe_hash: str) -> None:
        """Raise SaemakeError where these are tokens of another recipe: results/ from elsewhere, or
        older than the config, that Snakemake did not see to be stale."""
        if self.manifest.get("recipe_hash") != recipe_hash:
            raise SaemakeError(
                f"{self.folder / MANIFEST}: of another recipe than the config's; delete it and run"
                " the same command again"
            )

    @property
    def count(self) -> int:
        return self.manifest["tokens"]

    def documents(self) -> Iterator[np.ndarray]:
        """Each document's token ids, in order; a shard that changed is refused."""
        for shard in self.manifest["shards"]:
            path = self.folder / shard["file"]
            way_out = f"delete {self.folder / MANIFEST} and run the same command again"
            try:
                if sha256(path) != shard["sha256"]:
                    raise SaemakeError(f"{path}: its sha256 is not the manifest's; {way_out}")
                arrays = load(path.read_bytes())
            except (OSError, SafetensorError) as error:
                raise SaemakeError(f"{path}: {error}; {way_out}") from None
            ends = arrays["lengths"].cumsum(dtype=np.int64)
            yield from np.split(arrays["ids"], ends[:-1])

    def contexts(self, batch: int, skip: int = 0) -> Iterator[Contexts]:
        """Batches of `batch` documents in order, without the first `skip` batches; the last may be
        smaller."""
        waiting: list[np.ndarray] = []
        for document in itertools.islice(self.documents(), skip * batch, None):
            waiting.append(document)
            if len(waiting) == batch:
                yield _padded(waiting)
                waiting = []
        if waiting:
            yield _padded(waiting)

    def alike(self, batch: int, skip: int = 0) -> Iterator[Contexts]:
        """Batches of documents of about one length, so that little is padded, without the first
        `skip` batches (see `windows`)."""
        whole, rest = divmod(skip, WINDOW)
        documents = itertools.islice(self.documents(), whole * WINDOW * batch, None)
        for window in itertools.count(whole):
            here = list(itertools.islice(documents, WINDOW * batch))
            if not here:
                return
            for chosen in window_batches(list(map(len, here)), batch, window)[rest:]:
                yield _padded([here[index] for index in chosen])
            rest = 0


# Batches whose documents are sorted together: many for little padding, few for a text's order.
WINDOW = 16


def window_batches(lengths: Sequence[int], batch: int, window: int) -> list[list[int]]:
    """Documents of one window in batches of about one length, by index. The batches are in an order
    drawn by the window's number, so that long documents do not follow each other; one that is not
    full is the last."""
    by_length = sorted(range(len(lengths)), key=lambda index: lengths[index])
    full = len(lengths) // batch
    order = torch.randperm(full, generator=torch.Generator().manual_seed(window)).tolist()
    starts = [place * batch for place in [*order, *range(full, math.ceil(len(lengths) / batch))]]
    return [by_length[start : start + batch] for start in starts]


def _padded(documents: list[np.ndarray]) -> Contexts:
    longest = max(map(len, documents))
    ids = np.zeros((len(documents), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, document in enumerate(documents):
        ids[row, : len(document)] = document
        mask[row, : len(document)] = 1
    return Contexts(torch.from_numpy(ids), torch.from_numpy(mask))
