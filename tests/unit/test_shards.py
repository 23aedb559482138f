import json

import pytest
import torch

from saemake.base.errors import SaemakeError
from saemake.base.store import sha256
from saemake.text import prefetch
from saemake.text.shards import WINDOW, Contexts, Tokens, pack, window_batches


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


def text_of(tmp_path, lengths):
    """A text of documents of these lengths, whose ids are the document's number."""
    path = tmp_path / "shard.safetensors"
    path.write_bytes(pack([[number] * length for number, length in enumerate(lengths)], 10**4))
    shard = {"file": path.name, "sha256": sha256(path)}
    (tmp_path / "manifest.json").write_text(json.dumps({"shards": [shard]}))
    return Tokens(tmp_path / "manifest.json")


def test_a_window_is_cut_into_batches_of_about_one_length():
    batches = window_batches([5, 1, 4, 2, 3], 2, window=0)
    assert sorted(map(sorted, batches[:2])) == [[1, 3], [2, 4]]
    assert batches[2] == [0]  # not full, and so the last
    orders = {tuple(map(tuple, window_batches(list(range(40)), 2, window))) for window in range(9)}
    assert len(orders) == 9


def test_alike_documents_come_together_each_once(tmp_path):
    lengths = [(7 * number) % 50 + 1 for number in range(2 * WINDOW * 4 + 5)]
    tokens = text_of(tmp_path, lengths)
    batches = list(tokens.alike(4))
    assert sorted(int(row[0]) for batch in batches for row in batch.ids) == list(
        range(len(lengths))
    )
    padded = sum(int((batch.mask == 0).sum()) for batch in batches)
    assert padded < 0.2 * sum(int((batch.mask == 0).sum()) for batch in tokens.contexts(4))
    # A window's documents stay in it.
    first = {int(row[0]) for batch in batches[:WINDOW] for row in batch.ids}
    assert first == set(range(4 * WINDOW))


@pytest.mark.parametrize("skip", [0, 1, WINDOW - 1, WINDOW, WINDOW + 3, 2 * WINDOW + 1, 99])
def test_alike_documents_go_on_where_asked(tmp_path, skip):
    tokens = text_of(tmp_path, [(7 * number) % 50 + 1 for number in range(2 * WINDOW * 4 + 5)])
    expected = [batch.ids.tolist() for batch in tokens.alike(4)][skip:]
    assert [batch.ids.tolist() for batch in tokens.alike(4, skip)] == expected


def numbered(count, fails_at=None):
    for number in range(count):
        if number == fails_at:
            raise SaemakeError(f"no batch {number}")
        ids = torch.tensor([[number]])
        yield Contexts(ids, torch.ones_like(ids))


def test_what_is_read_ahead_comes_in_order():
    read = prefetch.prefetched(numbered(7), torch.device("cpu"))
    assert [int(batch.ids) for batch in read] == list(range(7))
    assert list(prefetch.prefetched(numbered(0), torch.device("cpu"))) == []


def test_a_fault_of_what_is_read_ahead_comes_in_its_turn():
    read = prefetch.prefetched(numbered(7, fails_at=3), torch.device("cpu"))
    assert [int(next(read).ids) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SaemakeError, match="no batch 3"):
        next(read)
