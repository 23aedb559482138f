"""Shards of tokens: safetensors files with `ids` (all tokens, end to end) and `lengths` (one per
document). A manifest lists them with their sha256, so that a GPU job reads them without a network.
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
    """Documents as one shard: `ids` in uint16 if the vocabulary allows, else in uint32; `lengths`
    in int32."""
    dtype = np.uint16 if vocabulary <= 2**16 else np.uint32
    ids = np.concatenate([np.asarray(document, dtype=dtype) for document in documents])
    lengths = np.asarray([np.size(document) for document in documents], dtype=np.int32)
    return save({"ids": ids, "lengths": lengths})


@dataclass(frozen=True)
class Contexts:
    """A batch of documents, padded on the right: `ids` int64 [B, L] and `mask` int64 [B, L], which
    is 1 at tokens and 0 at padding."""

    ids: Tensor
    mask: Tensor

    @property
    def tokens(self) -> int:
        return int(self.mask.sum())

    def pinned(self) -> "Contexts":
        """A copy in pinned memory, from which a GPU copies while it computes."""
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
        """Raise SaemakeError if these tokens were made by another recipe. Snakemake misses that if
        results/ comes from elsewhere or is older than the config."""
        if self.manifest.get("recipe_hash") != recipe_hash:
            raise SaemakeError(
                f"{self.folder / MANIFEST}: made by another recipe than the config's; delete it and"
                " run the same command again"
            )

    @property
    def count(self) -> int:
        return self.manifest["tokens"]

    def documents(self) -> Iterator[np.ndarray]:
        """The token ids of each document, in order. Raises SaemakeError if a shard has changed or
        cannot be read."""
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
        """Batches of `batch` documents in order, without the first `skip` batches. The last batch
        may be smaller."""
        group: list[np.ndarray] = []
        for document in itertools.islice(self.documents(), skip * batch, None):
            group.append(document)
            if len(group) == batch:
                yield _padded(group)
                group = []
        if group:
            yield _padded(group)

    def alike(self, batch: int, skip: int = 0) -> Iterator[Contexts]:
        """Batches of documents of similar length, which need little padding, without the first
        `skip` batches (see `window_batches`)."""
        first_window, skip_in_window = divmod(skip, WINDOW)
        documents = itertools.islice(self.documents(), first_window * WINDOW * batch, None)
        for window in itertools.count(first_window):
            in_window = list(itertools.islice(documents, WINDOW * batch))
            if not in_window:
                return
            lengths = list(map(len, in_window))
            for indices in window_batches(lengths, batch, window)[skip_in_window:]:
                yield _padded([in_window[index] for index in indices])
            skip_in_window = 0


# Number of batches whose documents are sorted together. A large window saves padding, a small one
# keeps the order of the text.
WINDOW = 16


def window_batches(lengths: Sequence[int], batch: int, window: int) -> list[list[int]]:
    """The documents of one window in batches of similar length, as indices into `lengths`. The
    window's number seeds the order of the batches, so that long documents do not follow each other.
    A batch that is not full comes last."""
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
