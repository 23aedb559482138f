import pytest
import torch

from saemake import architectures
from saemake.architectures import base
from saemake.architectures.standard_new import StandardNew
from saemake.architectures.top_k import TopK
from saemake.errors import SaemakeError
from saemake.training.settings import Training

TOP_K = {"auxk_alpha": 0.03125, "dead_after_tokens": 10**7, "threshold_beta": 0.5}
SETTINGS = {
    "top_k": {**TOP_K, "threshold_start_step": 2},
    "batch_top_k": {**TOP_K, "threshold_start_step": 2},
    "standard_new": {"sparsity_warmup_steps": 5},
}
SPARSITY = {"top_k": 3, "batch_top_k": 3, "standard_new": 0.05}
CPU = torch.device("cpu")


def make(name, *, seed=0, autocast="float32", d_model=16, width=64, steps=100, **settings):
    kind = architectures.get(name)
    training = Training(
        seed=seed,
        batch_tokens=32,
        norm_batches=1,
        learning_rate=1e-2,
        warmup_steps=5,
        decay_start_fraction=0.8,
        autocast=autocast,
        cpu_threads=1,
    )
    sparsity = SPARSITY[name]
    return kind(
        d_model=d_model,
        width=width,
        sparsity=sparsity,
        settings=kind.Settings(sweep=[sparsity], **{**SETTINGS[name], **settings}),
        training=training,
        steps=steps,
        device=CPU,
    )


def data(steps, d_model=16, batch=32):
    """Sparse combinations of few directions: what an SAE can learn."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(24, d_model, generator=generator)
    for _ in range(steps):
        chosen = torch.rand(batch, 24, generator=generator) < 0.1
        yield (chosen * torch.rand(batch, 24, generator=generator)) @ directions


@pytest.mark.parametrize("name", architectures.names())
@pytest.mark.parametrize("autocast", ["float32", "bfloat16"])
def test_training_lowers_the_reconstruction_error(name, autocast):
    trainer = make(name, autocast=autocast)
    losses = [
        trainer.update(step, x.to(getattr(torch, autocast))).parts["l2"].item()
        for step, x in enumerate(data(100))
    ]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert all(p.dtype == torch.float32 for p in trainer.dictionary.parameters())


@pytest.mark.parametrize("name", architectures.names())
def test_seeds_decide_the_weights_and_the_global_generator_does_not(name):
    torch.manual_seed(1)
    first = make(name).dictionary.state_dict()
    torch.manual_seed(2)
    again = make(name).dictionary.state_dict()
    other = make(name, seed=1).dictionary.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["encoder.weight"], other["encoder.weight"])


@pytest.mark.parametrize("name", architectures.names())
def test_scaled_biases_give_the_same_dictionary_of_scaled_activations(name):
    trainer = make(name)
    for step, x in enumerate(data(20)):
        trainer.update(step, x)
    dictionary = trainer.dictionary
    with torch.no_grad():
        before = dictionary.encode(x), dictionary.decode(dictionary.encode(x))
        dictionary.scale_biases(4.0)
        after = dictionary.encode(4 * x), dictionary.decode(dictionary.encode(4 * x))
    assert (after[0] > 0).sum() > 0
    torch.testing.assert_close(after[0], 4 * before[0])
    torch.testing.assert_close(after[1], 4 * before[1])


def test_top_k_keeps_the_k_largest_of_each_token():
    dictionary = TopK.make_dictionary(2, 4, 2)
    with torch.no_grad():
        dictionary.encoder.weight.copy_(torch.tensor([[1.0, 0], [2, 0], [3, 0], [-1, 0]]))
        dictionary.encoder.bias.zero_()
        f = dictionary.encode(torch.tensor([[1.0, 5.0], [-1.0, 0.0]]))
    # The second token has one positive latent; what else is kept is zero.
    assert f.tolist() == [[0, 2, 3, 0], [0, 0, 0, 1]]


def test_batch_top_k_keeps_k_a_token_on_average_in_training_and_a_threshold_after():
    trainer = make("batch_top_k")
    forward = trainer.forward(next(data(1)), step=0)
    assert int((forward.f_BF > 0).sum()) == 3 * 32
    dictionary = trainer.dictionary
    dictionary.threshold.fill_(0.2)
    x = next(data(1))
    with torch.no_grad():
        f, activations = dictionary.encode(x), dictionary.activations(x)
    torch.testing.assert_close(f, torch.where(activations > 0.2, activations, 0))


def test_threshold_starts_at_its_first_value_and_then_runs():
    trainer = make("top_k")
    trainer.update_threshold(torch.tensor(2.0))
    assert trainer.dictionary.threshold.item() == 2
    trainer.update_threshold(torch.tensor(4.0))
    assert trainer.dictionary.threshold.item() == 3  # beta 0.5


@pytest.mark.parametrize("name", ["top_k", "batch_top_k"])
def test_threshold_is_left_alone_until_its_start(name):
    trainer = make(name)
    seen = []
    for step, x in enumerate(data(5)):
        trainer.update(step, x)
        seen.append(trainer.dictionary.threshold.item())
    assert seen[:3] == [-1, -1, -1]
    assert seen[3] > 0


def test_top_k_smallest_is_the_mean_over_tokens_of_the_smallest_active():
    trainer = make("top_k", d_model=2, width=4)
    activations = torch.tensor([[4.0, 3.0, 2.0, 1.0], [5.0, 0.0, 0.0, 0.0], [0.0] * 4])
    _, fired, smallest = trainer.select(activations)
    assert smallest.item() == pytest.approx((2 + 5) / 2)
    assert fired[:3].all()


def test_decoder_is_unit_norm_before_the_forward_and_gradient_has_no_parallel_part():
    trainer = make("top_k")
    trainer.before_forward()
    weight = trainer.dictionary.decoder.weight
    torch.testing.assert_close(weight.norm(dim=0), torch.ones(64))
    trainer.forward(next(data(1)), step=0).loss.backward()
    trainer.before_optimizer()
    assert (weight.grad * weight).sum(dim=0).abs().max() < 1e-5


def test_unit_norm_and_projection_by_hand():
    weight = torch.nn.Parameter(torch.tensor([[3.0], [4.0]]))
    base.unit_norm_columns_(weight.data)
    torch.testing.assert_close(weight.data, torch.tensor([[0.6], [0.8]]))
    weight.grad = torch.tensor([[1.0], [0.0]])
    base.remove_parallel_gradient_(weight)
    torch.testing.assert_close(weight.grad, torch.tensor([[0.64], [-0.48]]))


@pytest.mark.parametrize("name", ["top_k", "batch_top_k"])
def test_a_latent_dies_after_its_tokens_and_then_auxk_is_in_the_loss(name):
    trainer = make(name, dead_after_tokens=64)
    parts = [trainer.update(step, x).parts for step, x in enumerate(data(6))]
    assert "auxk" not in parts[1]  # 64 tokens seen: none can be dead yet
    assert "auxk" in parts[2]
    assert parts[5]["auxk"].isfinite()
    assert (trainer.tokens_since_fired_F > 64).any()


def test_tokens_since_fired_is_reset_by_firing():
    trainer = make("top_k")
    x = next(data(1))
    forward = trainer.forward(x, step=0)
    fired = (forward.f_BF > 0).any(dim=0)
    assert (trainer.tokens_since_fired_F[fired] == 0).all()
    assert set(trainer.tokens_since_fired_F.tolist()) <= {0, 32}


def test_standard_new_weighs_its_penalty_by_the_sparsity_warmup():
    trainer = make("standard_new")
    x = next(data(1))
    cold, warm = trainer.forward(x, step=0), trainer.forward(x, step=5)
    assert cold.loss.item() == pytest.approx(cold.parts["l2"].item())
    expected = warm.parts["l2"] + 0.05 * warm.parts["sparsity"]
    assert warm.loss.item() == pytest.approx(expected.item())


def test_gradients_are_clipped_to_norm_one():
    trainer = make("standard_new")
    seen = []
    step = trainer.optimizer.step

    def spy():
        grads = [p.grad.flatten() for p in trainer.dictionary.parameters()]
        seen.append(torch.cat(grads).norm().item())
        step()

    trainer.optimizer.step = spy
    trainer.update(0, 1000 * next(data(1)))
    assert seen == [pytest.approx(1.0, rel=1e-4)]


def test_the_registry_refuses_a_second_of_one_name():
    class Again(StandardNew):
        name = "standard_new"

    with pytest.raises(ValueError, match=r"'standard_new'.*already registered"):
        architectures.register(Again)


def test_an_unknown_architecture_is_told_the_nearest():
    with pytest.raises(SaemakeError, match="no architecture 'topk'; did you mean 'top_k'"):
        architectures.get("topk")
