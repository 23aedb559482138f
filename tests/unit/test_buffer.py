from itertools import chain, pairwise

import pytest
import torch

from saemake.activations.buffer import ActivationBuffer, norm_factor
from saemake.base.errors import SaemakeError
from saemake.text.shards import Contexts

CPU = torch.device("cpu")


def stream(documents, batch=2):
    """Contexts whose token ids count up, so that each activation tells its token; padding is 0."""
    start = 1
    for index in range(0, len(documents), batch):
        lengths = documents[index : index + batch]
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, length in enumerate(lengths):
            ids[row, :length] = torch.arange(start, start + length)
            mask[row, :length] = 1
            start += length
        yield Contexts(ids, mask)


def capture(contexts):
    return contexts.ids[..., None].expand(-1, -1, 3).float()


def make(documents, *, capacity=20, batch=4, seed=0):
    return ActivationBuffer(
        ((contexts, capture(contexts)) for contexts in stream(documents)),
        d_model=3,
        capacity_tokens=capacity,
        batch_tokens=batch,
        seed=seed,
        dtype=torch.float32,
        device=CPU,
    )


def drawn(buffer, batches):
    return [buffer.batch()[:, 0].int().tolist() for _ in range(batches)]


def test_every_token_comes_once_and_no_padding():
    tokens = chain.from_iterable(drawn(make([5, 3, 7, 1, 4, 8, 6, 6]), 10))
    assert sorted(tokens) == list(range(1, 41))


def test_tokens_are_shuffled_across_contexts():
    tokens = list(chain.from_iterable(drawn(make([10] * 8), 20)))
    assert sum(abs(a - b) == 1 for a, b in pairwise(tokens)) < 20


def test_it_fills_when_less_than_half_is_unread():
    buffer = make([10] * 8, capacity=20, batch=4)
    buffer.batch()
    assert buffer.unread == 16
    drawn(buffer, 2)
    assert buffer.unread == 8
    buffer.batch()  # 8 < 10: filled to 20 or more, then 4 drawn
    assert buffer.unread == 28 - 4


def test_the_seed_decides_the_order():
    assert drawn(make([10] * 4), 5) == drawn(make([10] * 4), 5)
    assert drawn(make([10] * 4), 5) != drawn(make([10] * 4, seed=1), 5)


def test_a_batch_larger_than_the_buffer_is_still_whole():
    assert sorted(drawn(make([10] * 4, capacity=5, batch=40), 1)[0]) == list(range(1, 41))


def test_a_text_that_ends_too_early_is_said():
    buffer = make([5, 4])
    drawn(buffer, 2)
    with pytest.raises(SaemakeError, match="1 tokens left, fewer than a batch of 4"):
        buffer.batch()


def test_norm_factor_is_the_root_of_the_mean_squared_norm():
    batches = iter([torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2)])
    assert norm_factor(batches, 2) == pytest.approx(((25 + 1) / 2) ** 0.5)
    assert next(batches).sum() == 0  # it took no more than it was asked to
