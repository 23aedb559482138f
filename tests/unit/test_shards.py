import json

import pytest
import torch

from saemake.errors import SaemakeError
from saemake.store import sha256
from saemake.text.shards import Tokens, pack


@pytest.fixture
def manifest(tmp_path):
    documents = [[[5, 6, 7], [8]], [[9, 10]]]
    shards = []
    for index, group in enumerate(documents):
        path = tmp_path / f"shard_{index}.safetensors"
        path.write_bytes(pack(group, 100))
        shards.append({"file": path.name, "sha256": sha256(path)})
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"shards": shards, "tokens": 6}))
    return path


def test_documents_come_back_in_order_across_shards(manifest):
    documents = [document.tolist() for document in Tokens(manifest).documents()]
    assert documents == [[5, 6, 7], [8], [9, 10]]


def test_contexts_are_padded_on_the_right_and_masked(manifest):
    first, second = Tokens(manifest).contexts(2)
    assert first.ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert first.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert second.ids.tolist() == [[9, 10]]
    assert first.tokens == 4
    assert first.ids.dtype == torch.int64


def test_ids_over_65535_survive(tmp_path):
    path = tmp_path / "shard.safetensors"
    path.write_bytes(pack([[70_000, 1]], 256_000))
    shard = {"file": path.name, "sha256": sha256(path)}
    (tmp_path / "manifest.json").write_text(json.dumps({"shards": [shard], "tokens": 2}))
    (document,) = Tokens(tmp_path / "manifest.json").documents()
    assert document.tolist() == [70_000, 1]


def test_packing_is_deterministic():
    assert pack([[1, 2], [3]], 10) == pack([[1, 2], [3]], 10)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "missing"])
def test_a_damaged_shard_is_named_and_not_read(manifest, damage):
    path = manifest.parent / "shard_1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        end = {"flip": None, "truncate": -4, "empty": 0}[damage]
        path.write_bytes(content[:end])
    documents = Tokens(manifest).documents()
    assert next(documents).tolist() == [5, 6, 7]
    with pytest.raises(SaemakeError, match=r"shard_1.*delete .*manifest\.json"):
        list(documents)
