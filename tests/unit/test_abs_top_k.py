"""AbsTopK: by hand, and its loss and gradients against SAELens's formula, written down plainly."""

import pytest
import torch
from unit.test_architectures import data, forward_of, make

from saemake.architectures.abs_top_k.trainer import AbsTopKTrainer


def test_the_largest_in_size_are_kept_with_their_signs():
    config = {"activation_dim": 2, "dict_size": 4, "k": 2}
    dictionary = AbsTopKTrainer.make_dictionary(config).requires_grad_(False)
    dictionary.encoder.weight.copy_(torch.tensor([[1.0, 0], [0, 2], [-3, 0], [0, 1]]))
    dictionary.encoder.bias.copy_(torch.tensor([0.0, 0, 0, -1]))
    dictionary.decoder.weight.copy_(torch.tensor([[1.0, 0, 0, 2], [0, 1, 0, 0]]))
    dictionary.b_dec.copy_(torch.tensor([10.0, 20]))
    f = dictionary.encode(torch.tensor([[11.0, 20.0], [11.0, 16.0]]))
    # Before any is dropped: 1, 0, -3, -1 and 1, -8, -3, -5.
    assert [abs(value) for value in f[0].tolist()] in ([1, 0, 3, 0], [0, 0, 3, 1])
    assert f[1].tolist() == [0, -8, 0, -5]
    assert dictionary.decode(f[1]).tolist() == [10 - 2 * 5, 20 - 8]


def plain_loss(trainer, x, dead):
    """`training_forward_pass` of SAELens 6.54's AbsTopKTrainingSAE: its parts weighed by ours."""
    d = trainer.dictionary
    before = (x - d.b_dec) @ d.encoder.weight.T + d.encoder.bias

    def keep(values, k):
        chosen = values.abs().topk(k, dim=-1).indices
        return torch.zeros_like(before).scatter(-1, chosen, before.gather(-1, chosen))

    x_hat = d.decode(keep(before, d.k))
    loss = (x - x_hat).pow(2).sum(-1).mean()
    if dead.any():
        half = x.shape[-1] // 2
        count = min(half, int(dead.sum()))
        chosen = before.abs().masked_fill(~dead, -torch.inf).topk(count, dim=-1).indices
        f = torch.zeros_like(before).scatter(-1, chosen, before.gather(-1, chosen))
        missed = (x - x_hat).detach()
        auxk = (f @ d.decoder.weight.T - missed).pow(2).sum(-1).mean()
        loss = loss + trainer.settings.auxk_alpha * min(int(dead.sum()) / half, 1) * auxk
    return loss


@pytest.mark.parametrize("dead", [0, 3, 15])
def test_loss_and_gradients_are_saelens_own(dead):
    trainer = make("abs_top_k", dead_after_tokens=64, auxk_alpha=1.0)
    x = list(data(3))[-1]
    trainer.start(x, x)
    trainer.dictionary.encoder.bias.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    # Dead and staying so in this step: what does not fire counts its 32 tokens too.
    fired = trainer.dictionary.encode(x).count_nonzero(dim=0) > 0
    silent = (~fired).nonzero().squeeze(1)[:dead]
    assert len(silent) == dead
    trainer.tokens_since_fired_F[silent] = 64
    flags = torch.zeros(64, dtype=torch.bool).index_fill(0, silent, True)
    expected = plain_loss(trainer, x, flags)
    parameters = dict(trainer.dictionary.named_parameters())
    gradients = torch.autograd.grad(expected, list(parameters.values()))
    forward = forward_of(trainer, x, step=2)
    forward.loss.backward()
    assert (forward.parts["auxk"] > 0) == (dead > 0)
    torch.testing.assert_close(forward.loss, expected)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_what_is_listed_is_what_is_encoded():
    dictionary = make("abs_top_k").dictionary.requires_grad_(False)
    x = torch.randn(7, 16, generator=torch.Generator().manual_seed(0))
    places, values = dictionary.listed(x)
    f = torch.zeros(7 * 64).scatter(0, places, values).view(7, 64)
    assert f.equal(dictionary.encode(x))
    assert (f < 0).any()
    assert (f != 0).sum(dim=1).tolist() == [dictionary.k] * 7


def test_small_batches_of_an_end_to_end_loss_do_not_put_off_auxk():
    """Batches of whole contexts may have fewer tokens than `batch_tokens`: latents may be dead
    though step times this batch's tokens are too few."""
    trainer = make("abs_top_k")
    full = trainer.training.batch_tokens
    dead_after = trainer.settings.model_copy(update={"dead_after_tokens": 2 * full})
    trainer.settings = dead_after
    assert not trainer.auxk_is_due(1, full // 2)
    trainer.end_to_end = lambda y_hat: y_hat.sum()
    assert trainer.auxk_is_due(1, full // 2)
    assert not trainer.auxk_is_due(0, full // 2)
