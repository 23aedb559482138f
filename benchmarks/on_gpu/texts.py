"""Tokens without `datasets`: shards and a manifest, as training and evaluation read them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from saemake.text.shards import MANIFEST, Tokens, pack


def write_tokens(
    folder: Path, documents: list[list[int]], recipe_hash: str, special: dict[str, Any]
) -> Tokens:
    folder.mkdir(parents=True)
    content = pack([np.asarray(document) for document in documents], 300_000)
    (folder / "shard.safetensors").write_bytes(content)
    manifest = {
        "recipe_hash": recipe_hash,
        "tokens": sum(map(len, documents)),
        "documents": len(documents),
        "special_tokens": special,
        "text_revision": None,
        "shards": [{"file": "shard.safetensors", "sha256": hashlib.sha256(content).hexdigest()}],
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Tokens(folder / MANIFEST)


def random_text(folder: Path, vocabulary: int, tokens: int) -> Tokens:
    rng = np.random.default_rng(0)
    documents, held = [], 0
    while held < tokens:
        length = int(rng.integers(200, 1025))
        documents.append(rng.integers(5, vocabulary, size=length).tolist())
        held += length
    return write_tokens(folder, documents, "", {})
