"""jump_relu_tanh by hand, and its gradients against the same losses over whole matrices."""

import pytest
import torch
from unit.test_architectures import data, forward_of, make

from saemake.architectures import losses
from saemake.architectures.encoding import Encoding
from saemake.architectures.jump_relu.trainer import Jump
from saemake.architectures.jump_relu_tanh.trainer import JumpToInput
from saemake.architectures.places import Masked

NAME = "jump_relu_tanh"


def two_latents(**settings):
    """A trainer whose latents are x and 2x - 1 over the thresholds 1 and 10."""
    trainer = make(NAME, d_model=1, width=2, steps=10, sparsity_warmup_steps=None, **settings)
    dictionary = trainer.dictionary
    with torch.no_grad():
        dictionary.W_enc.copy_(torch.tensor([[1.0, 2.0]]))
        dictionary.b_enc.copy_(torch.tensor([0.0, -1.0]))
        dictionary.W_dec.copy_(torch.tensor([[2.0], [1.0]]))
        dictionary.threshold.copy_(torch.tensor([1.0, 10.0]))
    return trainer


def test_the_loss_by_hand():
    """Pre-activations are 2 and 3, 0.5 and 0: one latent fires, on the first token."""
    trainer = two_latents()
    forward = forward_of(trainer, torch.tensor([[2.0], [0.5]]), step=5)
    assert forward.l0.item() == 0.5
    assert forward.x_hat_BD.tolist() == [[4], [0]]
    assert forward.parts["l2"].item() == (4 + 0.25) / 2
    assert forward.parts["sparsity"].item() == pytest.approx(torch.tanh(torch.tensor(16.0)) / 2)
    # Norm 2 times 0 and 0.5, norm 1 times 7 and 10.
    assert forward.parts["pre_act"].item() == pytest.approx((2 * 0.5 + 7 + 10) / 2)
    # Half of the penalty, because half of the training is over.
    penalty = 0.5 * trainer.sparsity_value * forward.parts["sparsity"]
    expected = forward.parts["l2"] + penalty + 3e-6 * forward.parts["pre_act"]
    assert forward.loss.item() == pytest.approx(expected.item())


def test_only_silent_latents_have_a_pre_activation_loss():
    trainer = two_latents(dead_after_tokens=2)
    x = torch.tensor([[2.0], [0.5]])
    assert forward_of(trainer, x, step=0).parts["pre_act"] == 0
    assert forward_of(trainer, x, step=1).parts["pre_act"].item() == pytest.approx((7 + 10) / 2)


def test_without_a_pre_activation_loss_nothing_is_computed_of_it():
    forward = forward_of(two_latents(pre_act_loss_coefficient=0), torch.tensor([[2.0]]), step=0)
    assert set(forward.parts) == {"l2", "sparsity"}


def test_activations_have_the_norm_that_the_hyperparameters_are_for():
    """D = 4: activations are doubled, the loss is four times as large."""
    trainer = make(NAME, d_model=4, width=4, pre_act_loss_coefficient=0)
    dictionary = trainer.dictionary
    with torch.no_grad():
        dictionary.W_enc.copy_(torch.eye(4))
        dictionary.W_dec.copy_(torch.eye(4))
        dictionary.b_enc.zero_()
        dictionary.threshold.fill_(1.0)
    forward = forward_of(trainer, torch.tensor([[0.6, 0.4, 0.0, 0.0]]), step=0)
    assert forward.x_hat_BD.tolist() == [[pytest.approx(0.6), 0, 0, 0]]
    assert forward.parts["l2"].item() == pytest.approx(0.16)
    assert forward.loss.item() == pytest.approx(0.64)


def test_the_estimate_reaches_the_input_by_hand():
    """Within half a bandwidth of the threshold (0.5 of 1 here) are the first two."""
    x = torch.tensor([[0.9, 1.2, 3.0, 1.2]], requires_grad=True)
    threshold = torch.tensor([1.0, 1.0, 1.0, 2.0], requires_grad=True)
    places = Masked(torch.ones(1, 4, dtype=torch.bool), torch.float32)
    JumpToInput.apply(x, threshold, places, 1.0).sum().backward()
    assert x.grad.tolist() == [[1, 2, 1, 0]]
    assert threshold.grad.tolist() == [-1, -1, 0, 0]


@pytest.mark.parametrize(("share", "firing"), [(16, 8), (1, 1), (10_000, 16)])
def test_each_latent_fires_on_its_share_of_the_first_batch(share, firing):
    """Of 64 latents so many on a token, of 32 tokens; at least one token, at most half."""
    trainer = make(NAME, initial_l0=share)
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    trainer.start(x, x)
    dictionary = trainer.dictionary
    fired_F = (dictionary.encode(trainer.unit * x) > 0).sum(dim=0)
    assert fired_F.tolist() == [firing] * 64
    assert (dictionary.threshold == torch.tensor(0.1)).all()


def over_whole_matrices(trainer, x_BD, scale):
    """The loss as the update and SAELens write it, of all latents of all tokens."""
    dictionary, settings = trainer.dictionary, trainer.settings
    x_BD = trainer.unit * x_BD
    z_BF = x_BD @ dictionary.W_enc + dictionary.b_enc
    places = Masked(torch.ones_like(z_BF, dtype=torch.bool), torch.float32)
    jump = JumpToInput if settings.ste_to_input else Jump
    f_BF = jump.apply(z_BF, dictionary.threshold, places, settings.bandwidth)
    norms_F = dictionary.W_dec.norm(dim=1)
    l2 = losses.reconstruction(x_BD, f_BF @ dictionary.W_dec + dictionary.b_dec)
    sparsity = torch.tanh(settings.tanh_scale * f_BF * norms_F).sum(dim=1).mean()
    below_BF = (dictionary.threshold - z_BF).relu() * norms_F
    dead_F = trainer.tokens_since_fired_F >= settings.dead_after_tokens
    pre_act = (below_BF * dead_F).sum(dim=1).mean()
    return (
        l2 + scale * trainer.sparsity_value * sparsity + settings.pre_act_loss_coefficient * pre_act
    )


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("ste_to_input", [True, False])
@pytest.mark.parametrize("dead_after_tokens", [0, 64])
def test_gradients_are_those_over_whole_matrices(few, ste_to_input, dead_after_tokens, monkeypatch):
    """Whether the latents over their thresholds, or near, are a list or a mask."""
    trainer = make(
        NAME,
        bandwidth=0.5,
        ste_to_input=ste_to_input,
        dead_after_tokens=dead_after_tokens,
        pre_act_loss_coefficient=0.1,
    )
    for step, x in enumerate(data(20)):
        trainer.update(step, x)
    monkeypatch.setattr(Encoding, "most_listed", 10**9 if few else 0)
    trainer.tokens_since_fired_F[:32] = 64
    parameters = dict(trainer.dictionary.named_parameters())
    expected = over_whole_matrices(trainer, x, scale=1.0)
    gradients = torch.autograd.grad(expected, list(parameters.values()))
    forward = forward_of(trainer, x, step=20)
    torch.testing.assert_close(forward.loss, expected)
    found = torch.autograd.grad(forward.loss, list(parameters.values()))
    for name, ours, theirs in zip(parameters, found, gradients, strict=True):
        assert theirs.any(), name
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)


def test_thresholds_stay_at_0_or_above():
    trainer = make(NAME)
    trainer.dictionary.threshold.data.fill_(1e-6)
    for step, x in enumerate(data(5)):
        trainer.update(step, x)
        assert trainer.dictionary.threshold.min() >= 0
    assert (trainer.dictionary.threshold == 0).any()


def test_what_is_saved_has_decoder_rows_of_unit_norm_and_is_the_same_function():
    trainer = make(NAME)
    for step, x in enumerate(data(20)):
        trainer.update(step, x)
    before = {key: value.clone() for key, value in trainer.dictionary.state_dict().items()}
    saved, training = trainer.finished(scale=3.0), trainer.dictionary
    with torch.no_grad():
        expected = training.decode(training.encode(trainer.unit * x)) / trainer.unit
        latents, reconstructed = saved.encode(3 * x), saved.decode(saved.encode(3 * x))
    torch.testing.assert_close(saved.W_dec.norm(dim=1), torch.ones(64))
    torch.testing.assert_close(reconstructed, 3 * expected)
    assert (latents > 0).any()
    assert all(value.equal(before[key]) for key, value in training.state_dict().items())
