"""Matching pursuit: by hand, and its gradients against torch's own of the plain loop."""

from itertools import pairwise

import pytest
import torch
from unit.test_architectures import data, forward_of, make

from saemake.architectures import products
from saemake.architectures.matching_pursuit.trainer import MatchingPursuitTrainer


def dictionary_of(rows, k):
    rows = torch.tensor(rows)
    dictionary = MatchingPursuitTrainer.make_dictionary(
        {"activation_dim": rows.shape[1], "dict_size": len(rows), "k": k}
    )
    dictionary.W_dec.data.copy_(rows)
    return dictionary.requires_grad_(False)


def test_what_a_latent_explains_is_subtracted_before_the_next_is_chosen():
    """(3, 4): of the products 3, 4 and 5 the last is largest, and nothing is left."""
    rows = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]
    dictionary = dictionary_of(rows, k=2)
    assert dictionary.encode(torch.tensor([3.0, 4.0])).tolist() == [0, 0, 5]
    # (4, 3): 4.8 of the last leaves (1.12, -0.84), of which 1.12 of the first.
    f = dictionary.encode(torch.tensor([[4.0, 3.0]]))
    torch.testing.assert_close(f, torch.tensor([[1.12, 0.0, 4.8]]))
    torch.testing.assert_close(dictionary.decode(f), torch.tensor([[4.0, 3.84]]))


def test_a_latent_that_is_chosen_again_has_the_sum():
    """Two rows at 60 degrees take turns: what is left halves with each round."""
    rows = [[1.0, 0.0], [0.5, 0.75**0.5]]
    f = dictionary_of(rows, k=4).encode(torch.tensor([[8.0, 0.0]]))
    # 8 leaves nothing; the zeros of later rounds count as inactive.
    assert f.tolist() == [[8, 0]]
    f = dictionary_of(rows, k=3).encode(torch.tensor([[8.0, 8.0]]))
    after = 8 * 0.5 + 8 * 0.75**0.5
    rest = torch.tensor([8.0, 8.0]) - after * torch.tensor(rows[1])
    second = rest[0].item()
    third = -second * 0.5  # the rest is orthogonal to the second row before
    assert third < 0  # so nothing more fits
    torch.testing.assert_close(f, torch.tensor([[second, after]]))


def test_three_rounds_may_choose_a_latent_twice():
    rows = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.2]]), dim=1)
    x = torch.tensor([1.0, 0.9])
    f = torch.zeros(3)
    rest, chosen = x, []
    for _ in range(6):
        fits = rows @ rest
        chosen.append(int(fits.argmax()))
        f[chosen[-1]] += fits.max().relu()
        rest = rest - fits.max().relu() * rows[chosen[-1]]
    assert len(set(chosen)) < 6
    torch.testing.assert_close(dictionary_of(rows.tolist(), 6).encode(x), f)


def test_nothing_fits_what_points_away_from_all():
    dictionary = dictionary_of([[1.0, 0.0], [0.0, 1.0]], k=2)
    assert dictionary.encode(torch.tensor([[-1.0, -2.0]])).tolist() == [[0, 0]]


def plain_loss(rows_FD, bias_D, x_BD, k):
    """As SAELens's `_encode_matching_pursuit` computes it: torch follows every round."""
    rest_BD, x_hat_BD = x_BD - bias_D, bias_D.expand_as(x_BD)
    for _ in range(k):
        chosen_BD = rows_FD[(rest_BD @ rows_FD.T).argmax(dim=1)]
        explained_BD = (rest_BD * chosen_BD).sum(dim=1, keepdim=True).relu() * chosen_BD
        rest_BD, x_hat_BD = rest_BD - explained_BD, x_hat_BD + explained_BD
    return (x_BD - x_hat_BD).pow(2).sum(dim=1).mean()


@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("rows_bytes", [2**22, 1])
def test_gradients_are_those_of_all_rounds(k, rows_bytes, monkeypatch):
    monkeypatch.setitem(products.ROWS_BYTES, "cpu", rows_bytes)
    trainer = make("matching_pursuit", d_model=6, width=20)
    trainer.dictionary.k = k
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    trainer.dictionary.b_dec.data.normal_(generator=torch.Generator().manual_seed(1))
    rows_FD, bias_D = (p.detach().clone().requires_grad_() for p in trainer.dictionary.parameters())
    expected = plain_loss(rows_FD, bias_D, x, k)
    expected.backward()
    forward = forward_of(trainer, x, step=0)
    forward.loss.backward()
    torch.testing.assert_close(forward.loss, expected)
    torch.testing.assert_close(trainer.dictionary.W_dec.grad, rows_FD.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(trainer.dictionary.b_dec.grad, bias_D.grad, atol=1e-5, rtol=1e-4)


def test_rows_keep_unit_norm_and_more_rounds_leave_less():
    trainer = make("matching_pursuit")
    for step, x in enumerate(data(30)):
        trainer.update(step, x)
    dictionary = trainer.finished(scale=1.0)
    torch.testing.assert_close(dictionary.W_dec.norm(dim=1), torch.ones(64))
    left = []
    for dictionary.k in (1, 2, 4, 8):
        f = dictionary.encode(x)
        assert (f.count_nonzero(dim=1) <= dictionary.k).all()
        left.append((dictionary.decode(f) - x).norm(dim=1))
    assert all((after <= before + 1e-6).all() for before, after in pairwise(left))
