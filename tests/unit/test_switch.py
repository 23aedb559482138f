"""switch by hand, and its places against whole matrices."""

import pytest
import torch
from unit.test_architectures import data, forward_of, make

from saemake.architectures.encoding import Encoding
from saemake.architectures.places import Masked
from saemake.architectures.switch.trainer import SwitchDictionary, load_balance


def two_experts():
    """Tokens with x0 > x1 go to the first expert, whose latents are x0 and 3 x0; those of the
    second are x1 and -x1. k is 1."""
    dictionary = SwitchDictionary(2, 4, k=1, experts=2)
    with torch.no_grad():
        dictionary.encoder.weight.copy_(torch.tensor([[1.0, 0], [3, 0], [0, 1], [0, -1]]))
        dictionary.router.weight.copy_(torch.tensor([[1.0, 0], [0, 1]]))
        dictionary.decoder.copy_(torch.eye(2).repeat(2, 1))
    return dictionary


def test_the_router_decides_and_its_probability_counts_by_hand():
    dictionary = two_experts()
    x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    first, second, third = torch.tensor([1.0, 2.0, 3.0]).sigmoid()
    f = dictionary.encode(x)
    torch.testing.assert_close(
        f,
        torch.tensor([[0.0, 0, first, 0], [0, 6 * second, 0, 0], [0, 0, 3 * third, 0]]),
    )
    torch.testing.assert_close(dictionary.decode(f)[1], torch.tensor([0, 6 * second]))
    places, values = dictionary.listed(x)
    assert places.tolist() == [2, 5, 10]
    torch.testing.assert_close(values, f.flatten()[places])


def test_biases_are_subtracted_before_router_and_encoder():
    dictionary = two_experts()
    dictionary.b_router.data = torch.tensor([0.0, 5.0])
    dictionary.b_dec.data = torch.tensor([1.0, 0.0])
    with torch.no_grad():
        f = dictionary.encode(torch.tensor([[3.0, 4.0]]))  # 3 - 0 is more than 4 - 5
    torch.testing.assert_close(f, torch.tensor([[0, 3 * 2.0, 0, 0]]) * torch.tensor(4.0).sigmoid())


def test_no_token_and_one_expert_for_all():
    dictionary = two_experts()
    assert dictionary.encode(torch.zeros(0, 2)).shape == (0, 4)
    f = dictionary.encode(torch.tensor([[2.0, 0.0], [1.0, 0.0]]))
    assert f.count_nonzero(dim=1).tolist() == [1, 1]
    assert not f[:, 2:].any()


def test_gradients_of_activations_pass_through_latents_and_router():
    x = torch.tensor([[2.0, 0.0]], requires_grad=True)
    two_experts().encode(x).sum().backward()
    chance = torch.tensor(2.0).sigmoid()
    # The derivative of 3 x0 * sigmoid(x0 - x1).
    slope = 6 * chance * (1 - chance)
    torch.testing.assert_close(x.grad, torch.stack([3 * chance + slope, -slope])[None])


def test_the_load_balance_by_hand():
    """Shares 3/4 and 1/4, mean probabilities 0.6 and 0.4."""
    chances = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    assert load_balance(chances, [3, 1]).item() == pytest.approx(2 * (0.75 * 0.6 + 0.25 * 0.4))
    assert load_balance(torch.full((4, 2), 0.5), [2, 2]).item() == pytest.approx(1)


def test_the_load_balance_is_in_the_loss_and_moves_the_router():
    trainer, x = make("switch", lb_alpha=0.3), next(data(1))
    forward = forward_of(trainer, x, step=0)
    expected = forward.parts["l2"] + 0.3 * forward.parts["load_balance"]
    assert forward.loss.item() == pytest.approx(expected.item())
    forward.loss.backward()
    assert trainer.dictionary.router.weight.grad.any()


def test_experts_share_the_latents_also_where_they_do_not_divide_them():
    trainer, x = make("switch", width=65, experts=4), next(data(1)) + 0.01
    assert trainer.dictionary.sizes == [17, 16, 16, 16]
    trainer.update(0, x)
    f = trainer.dictionary.encode(x)
    of_experts = torch.stack([part.any(dim=1) for part in f.split([17, 16, 16, 16], dim=1)])
    assert (of_experts.sum(dim=0) <= 1).all()
    assert of_experts.any(dim=1).sum() > 1


@pytest.mark.parametrize("few", [True, False])
def test_routed_places_are_those_of_whole_matrices(few, monkeypatch):
    monkeypatch.setattr(Encoding, "most_listed", 10**9 if few else 0)
    trainer, x = make("switch", experts=8, d_model=16), next(data(1)) + 0.01
    with torch.no_grad():
        # An expert without tokens.
        trainer.dictionary.b_router[0] = 1000.0
        trainer.dictionary.router.weight[:, 0] = 0.0
        trainer.dictionary.router.weight[2] = torch.eye(16)[0]
    dictionary = trainer.dictionary
    forward = forward_of(trainer, x, step=0)
    places, f_P = forward.places, forward.f_P.detach()
    assert 0 in places.groups.counts
    f_BF = dictionary.encode(x)
    assert f_BF.count_nonzero() == f_P.count_nonzero()
    whole = Masked(f_BF != 0, torch.float32)
    kept_P = f_P * (f_P > 0)
    each_F, each_B = torch.rand(64), torch.rand(len(x))
    rows_FD = torch.randn(64, 16)
    for ours, theirs in (
        (places.by_latent(f_P), f_BF.sum(dim=0)),
        (places.by_token(f_P), f_BF.sum(dim=1)),
        (places.count(f_P > 0), whole.count()),
        (places.only(f_P).sum(), f_BF.sum()),
        (places.smallest_by_token(f_P), whole.smallest_by_token(f_BF)),
        (places.by_token(kept_P * places.of_latents(each_F)), (f_BF * each_F).sum(dim=1)),
        (places.by_latent(kept_P * places.of_tokens(each_B)), each_B @ f_BF),
        (places.decode(f_P, rows_FD), f_BF @ rows_FD),
        (places.outer(f_P, x), f_BF.T @ x),
        (places.detached(f_P).by_latent(f_P), f_BF.sum(dim=0)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert places.latents()[whole.latents()].all()
    assert not places.latents()[16:24].any()
    assert forward.l0 == f_BF.count_nonzero() / len(x)


def test_a_step_costs_what_the_latents_of_one_expert_cost():
    trainer = make("switch", experts=4, width=64)
    assert type(trainer).products_of_step(trainer.settings, 4, 64) == 5 / 4 + 3 * 4 / 64
    assert trainer.settings.latents_needed() == {"sweep": 16}
