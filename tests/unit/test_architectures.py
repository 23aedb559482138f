import json

import pytest
import torch

from saemake import architectures
from saemake.architectures.description import Architecture
from saemake.architectures.jump_relu.trainer import Jump, MeanL0
from saemake.architectures.places import Listed, Masked
from saemake.architectures.standard_new import StandardNew
from saemake.architectures.top_k.trainer import TopKTrainer
from saemake.architectures.training_settings import Training
from saemake.base.errors import SaemakeError
from saemake.training import files

KEPT = ("top_k", "batch_top_k", "matryoshka_batch_top_k")
SPARSITY = {name: architectures.get(name).example["sweep"][0] for name in architectures.names()}
SPARSITY |= dict.fromkeys((*KEPT, "jump_relu"), 3)
# What the tests here ask besides the example.
OWN = {name: {"threshold_start_step": 2} for name in KEPT}
CPU = torch.device("cpu")


def make(
    name,
    *,
    recipe="saebench",
    seed=0,
    autocast="float32",
    d_model=16,
    width=64,
    steps=100,
    learning_rate=1e-2,
    warmup_steps=5,
    decay_start_fraction=0.8,
    **settings,
):
    kind = architectures.get(name)
    training = Training(
        recipe=recipe,
        seed=seed,
        batch_tokens=32,
        norm_batches=1,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        decay_start_fraction=decay_start_fraction,
        autocast=autocast,
        cpu_threads=1,
    )
    sparsity = SPARSITY[name]
    return kind.trainer()(
        d_model=d_model,
        width=width,
        sparsity=sparsity,
        settings=kind.Settings(
            **{**kind.example, **OWN.get(name, {}), "sweep": [sparsity], **settings}
        ),
        training=training,
        steps=steps,
        device=CPU,
    )


def forward_of(trainer, x, step):
    """The forward pass of a step by itself."""
    trainer.now = trainer.schedule(step)
    return trainer.forward(x, x, step)


def data(steps, d_model=16, batch=32):
    """Sparse combinations of few directions: what an SAE can learn."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(24, d_model, generator=generator)
    for _ in range(steps):
        chosen = torch.rand(batch, 24, generator=generator) < 0.1
        yield (chosen * torch.rand(batch, 24, generator=generator)) @ directions


@pytest.mark.parametrize("name", architectures.names())
def test_a_trainer_is_one_class_of_its_own_name_in_its_own_folder(name):
    kind = architectures.get(name)
    trainer = kind.trainer()
    assert trainer.__name__ == f"{kind.__name__}Trainer"
    assert trainer.__module__ == f"saemake.architectures.{name}.trainer"
    assert "forward" in vars(trainer)  # its loss stands in the class itself
    others = {other for other in map(architectures.get, architectures.names()) if other is not kind}
    assert not others & set(trainer.__mro__)


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
    drawn = {"encoder.weight", "W_enc"} & set(first)
    assert all(not torch.equal(first[key], other[key]) for key in drawn)
    assert drawn


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
    dictionary = TopKTrainer.make_dictionary({"activation_dim": 2, "dict_size": 4, "k": 2})
    with torch.no_grad():
        dictionary.encoder.weight.copy_(torch.tensor([[1.0, 0], [2, 0], [3, 0], [-1, 0]]))
        dictionary.encoder.bias.zero_()
        f = dictionary.encode(torch.tensor([[1.0, 5.0], [-1.0, 0.0]]))
    # The second token has one positive latent; what else is kept is zero.
    assert f.tolist() == [[0, 2, 3, 0], [0, 0, 0, 1]]


def test_batch_top_k_keeps_k_a_token_on_average_in_training_and_a_threshold_after():
    trainer = make("batch_top_k")
    forward = forward_of(trainer, next(data(1)), step=0)
    assert int((forward.f_P > 0).sum()) == 3 * 32
    dictionary = trainer.dictionary
    dictionary.threshold.fill_(0.2)
    x = next(data(1))
    with torch.no_grad():
        f, activations = dictionary.encode(x), dictionary.every_latent(x)
    torch.testing.assert_close(f, torch.where(activations > 0.2, activations, 0))


def test_threshold_starts_at_its_first_value_and_then_runs():
    trainer = make("top_k")
    trainer.update_threshold(torch.tensor(2.0))
    assert trainer.dictionary.threshold.item() == 2
    trainer.update_threshold(torch.tensor(4.0))
    assert trainer.dictionary.threshold.item() == 3  # beta 0.5


@pytest.mark.parametrize("name", KEPT)
def test_threshold_is_left_alone_until_its_start(name):
    trainer = make(name)
    seen = []
    for step, x in enumerate(data(5)):
        trainer.update(step, x)
        seen.append(trainer.dictionary.threshold.item())
    assert seen[:3] == [-1, -1, -1]
    assert seen[3] > 0


def test_top_k_smallest_is_the_mean_over_tokens_of_the_smallest_active():
    trainer = make("top_k", d_model=4, width=4)
    trainer.dictionary.encoder.weight.data = torch.eye(4)
    activations = torch.tensor([[4.0, 3.0, 2.0, 1.0], [5.0, 0.0, 0.0, 0.0], [0.0] * 4])
    forward_of(trainer, activations, step=3)
    assert trainer.dictionary.threshold.item() == pytest.approx((2 + 5) / 2)
    assert (trainer.tokens_since_fired_F[:3] == 0).all()


@pytest.mark.parametrize("recipe", ["saebench", "dictionary_learning"])
@pytest.mark.parametrize("name", KEPT)
def test_a_latent_dies_after_its_tokens_and_then_auxk_is_in_the_loss(name, recipe):
    trainer = make(name, recipe=recipe, dead_after_tokens=65)
    parts = [trainer.update(step, x).parts for step, x in enumerate(data(6))]
    assert "auxk" not in parts[1]  # 64 tokens seen: none can be dead yet
    assert "auxk" in parts[2]
    assert parts[5]["auxk"] > 0
    assert (trainer.tokens_since_fired_F >= 65).any()


def test_tokens_since_fired_is_reset_by_firing():
    trainer = make("top_k")
    x = next(data(1))
    forward = forward_of(trainer, x, step=0)
    fired = forward.places.by_latent(forward.f_P > 0) > 0
    assert (trainer.tokens_since_fired_F[fired] == 0).all()
    assert set(trainer.tokens_since_fired_F.tolist()) <= {0, 32}


def test_standard_new_weighs_its_penalty_by_the_sparsity_warmup():
    trainer = make("standard_new")
    x = next(data(1))
    cold, warm = forward_of(trainer, x, step=0), forward_of(trainer, x, step=5)
    assert cold.loss.item() == pytest.approx(cold.parts["l2"].item())
    expected = warm.parts["l2"] + 0.05 * warm.parts["sparsity"]
    assert warm.loss.item() == pytest.approx(expected.item())


def test_jump_relu_by_hand():
    """Gradients of the threshold come from within half a bandwidth of it (0.5 of 1 here)."""
    x = torch.tensor([[0.9, 1.2, 3.0, 1.2]], requires_grad=True)
    threshold = torch.tensor([1.0, 1.0, 1.0, 2.0], requires_grad=True)
    places = Masked(torch.ones(1, 4, dtype=torch.bool), torch.float32)
    f = Jump.apply(x, threshold, places, 1.0)
    torch.testing.assert_close(f, torch.tensor([[0.0, 1.2, 3.0, 0.0]]))
    f.sum().backward()
    assert x.grad.tolist() == [[0, 1, 1, 0]]
    # -threshold / bandwidth where near
    assert threshold.grad.tolist() == [-1, -1, 0, 0]
    threshold.grad = None
    l0 = MeanL0.apply(threshold, x.detach(), places, 0.5)
    assert l0.item() == 2
    l0.backward()
    # -1 / bandwidth, within 0.25
    assert threshold.grad.tolist() == [-2, -2, 0, 0]


def test_the_mean_l0_counts_the_zeros_at_no_place():
    """Of two tokens and three latents one value is listed; the others are 0, over a threshold below
    it, and near one within half a bandwidth."""
    threshold = torch.tensor([1.0, -0.1, 0.2], requires_grad=True)
    places = Listed(torch.tensor([0]), torch.tensor([0, 1]), 3, torch.float32)
    l0 = MeanL0.apply(threshold, torch.tensor([1.1]), places, 0.5)
    assert l0.item() == (1 + 2) / 2
    l0.backward()
    assert threshold.grad.tolist() == [-1, -2, -2]


def test_jump_relu_penalises_the_distance_from_its_target():
    trainer = make("jump_relu")
    x = next(data(1))
    cold, warm = forward_of(trainer, x, step=0), forward_of(trainer, x, step=5)
    assert warm.parts["sparsity"].item() == pytest.approx((warm.l0.item() / 3 - 1) ** 2, rel=1e-5)
    assert cold.loss.item() == pytest.approx(cold.parts["l2"].item())
    expected = warm.parts["l2"] + warm.parts["sparsity"]
    assert warm.loss.item() == pytest.approx(expected.item())


def test_the_gate_decides_and_the_magnitude_counts():
    trainer = make("gated", d_model=1, width=2)
    dictionary = trainer.dictionary
    with torch.no_grad():
        dictionary.encoder.weight.copy_(torch.tensor([[1.0], [1.0]]))
        dictionary.decoder.weight.copy_(torch.tensor([[1.0, 1.0]]))
        dictionary.gate_bias.copy_(torch.tensor([-1.0, -3.0]))
        dictionary.mag_bias.copy_(torch.tensor([0.5, 0.5]))
        dictionary.r_mag.copy_(torch.tensor([2.0, 2.0]).log())
    x = torch.tensor([[2.0]])
    gate, f = dictionary.gate_and_magnitude(x)
    assert gate.tolist() == [[1, 0]]
    torch.testing.assert_close(f, torch.tensor([[4.5, 0.0]]))
    forward = forward_of(trainer, x, step=5)
    # (2 - 4.5)^2, 0.05 of the gate's 1, and the gate's own reconstruction 1 against 2
    assert forward.loss.item() == pytest.approx(6.25 + 0.05 + 1)
    forward.loss.backward()
    # The gate's reconstruction trains no decoder: 2 * 2.5 * f alone.
    assert dictionary.decoder.weight.grad.tolist() == [[pytest.approx(2 * 2.5 * 4.5), 0]]


@pytest.mark.parametrize(
    ("recipe", "given", "weights"),
    [
        ("saebench", {}, [0.125, 0.25, 0.625]),
        ("dictionary_learning", {}, [1 / 3] * 3),
        ("saebench", {"group_weights": "uniform"}, [1 / 3] * 3),
        ("dictionary_learning", {"group_weights": "fractions"}, [0.125, 0.25, 0.625]),
        ("saebench", {"group_weights": [1.0, 2.0, 3.0]}, [1, 2, 3]),
    ],
)
def test_matryoshka_weighs_the_loss_of_each_prefix(recipe, given, weights):
    trainer = make("matryoshka_batch_top_k", recipe=recipe, **given)
    assert trainer.dictionary.group_sizes.tolist() == [8, 16, 40]
    x = next(data(1))
    forward = forward_of(trainer, x, step=0)
    expected = 0
    for weight, end in zip(weights, (8, 24, 64), strict=True):
        (part, f_P), _ = forward.places.split(forward.f_P, [end, 64 - end])
        x_hat = part.decode(f_P, trainer.dictionary.W_dec[:end]) + trainer.dictionary.b_dec
        expected += weight * (x - x_hat).pow(2).sum(dim=-1).mean() / 3
    assert forward.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert trainer.trainer_config()["group_weights"] == pytest.approx(weights)


def test_matryoshkas_last_group_takes_what_rounding_leaves():
    trainer = make("matryoshka_batch_top_k", width=70, group_fractions=[0.33, 0.33, 0.34])
    assert trainer.dictionary.group_sizes.tolist() == [23, 23, 24]


def test_p_anneal_keeps_the_penalty_of_recent_batches_when_p_falls():
    trainer = make("p_anneal")
    for step, x in enumerate(data(30)):
        if step == 28:
            break
        trainer.update(step, x)
    # Of the updates at 20 and at 28 the first only says what p will be.
    assert (trainer.p, trainer.coefficient) == (1.0, 0.05)
    f = trainer.dictionary.encode(x).detach()
    trainer.update(28, x)
    assert trainer.p == pytest.approx(1 - 0.8 / 9)
    old, new = (float((f**p).sum(dim=-1).mean()) for p in (1.0, trainer.p))
    assert trainer.coefficient * new == pytest.approx(0.05 * old, rel=0.1)


def test_p_anneal_updates_continuously_where_asked():
    trainer = make("p_anneal", steps=30, n_sparsity_updates="continuous")
    seen = []
    for step, x in enumerate(data(30)):
        trainer.update(step, x)
        seen.append(trainer.p)
    assert len(set(seen[20:])) == 10


@pytest.mark.parametrize("name", ["standard", "p_anneal"])
def test_resampling_points_dead_latents_at_tokens(name):
    """At the step that each trainer resamples at; half of the latents cannot fire."""
    trainer = make(name, decay_start_fraction=1.0, resample_steps=10, warmup_steps=2)
    trainer.dictionary.encoder.bias.data[:32] = -100.0
    at = 10 if name == "standard" else 9
    for step, x in enumerate(data(at + 1)):
        x += 0.01  # no token without a direction
        trainer.update(step, x)
    dictionary = trainer.dictionary
    dead = (dictionary.encoder.bias == 0).nonzero().squeeze(1)
    assert len(dead) == 32  # as many as there are tokens
    directions = x / x.norm(dim=1, keepdim=True)
    match = (directions @ dictionary.decoder.weight[:, dead]).max(dim=0).values
    torch.testing.assert_close(match, torch.ones(32))
    assert not trainer.moments(dictionary.encoder.weight)[0][dead].any()
    assert not trainer.moments(dictionary.decoder.weight)[1][:, dead].any()
    assert trainer.learning_rate(10) == 0  # and warms up anew
    assert trainer.learning_rate(12) == 1e-2


def test_the_release_resamples_p_anneal_in_adam_only():
    trainer = make(
        "p_anneal", recipe="dictionary_learning", decay_start_fraction=1.0, resample_steps=10
    )
    trainer.dictionary.encoder.bias.data[:32] = -100.0
    for step, x in enumerate(data(10)):
        trainer.update(step, x)
    assert (trainer.dictionary.encoder.bias[:32] < -99).all()
    assert not trainer.moments(trainer.dictionary.encoder.bias)[0][:32].any()


@pytest.mark.parametrize("name", KEPT)
def test_k_falls_to_its_value_from_the_models_width(name):
    trainer = make(name, k_anneal_steps=10)
    seen = []
    for step, x in enumerate(data(15)):
        active = trainer.update(step, x).l0.item()
        seen.append((trainer.dictionary.kept, int(trainer.dictionary.k)))
        assert active <= seen[-1][0]
    # 3 at the first step, then from 16 down, as dictionary_learning's later versions.
    assert [k for k, _ in seen] == [3, 16, 14, 13, 12, 10, 9, 8, 6, 5, 4, 3, 3, 3, 3]
    assert all(kept == buffer for kept, buffer in seen)


@pytest.mark.parametrize("name", architectures.names())
def test_latents_that_did_not_fire_are_counted(name):
    trainer = make(name)
    for step, x in enumerate(data(3)):
        forward = trainer.update(step, x)
    fired = forward.places.by_latent(forward.f_P > 0) > 0
    assert trainer.tokens_since_fired_F[fired].sum() == 0
    assert set(trainer.tokens_since_fired_F.tolist()) <= {0, 32, 64, 96}


@pytest.mark.parametrize("name", KEPT)
def test_the_two_inferences_differ_and_each_is_what_it_says(name):
    trainer = make(name)
    for step, x in enumerate(data(20)):
        trainer.update(step, x)
    dictionary = trainer.dictionary
    assert dictionary.inference == type(trainer).inferences[0]
    with torch.no_grad():
        found = {}
        for dictionary.inference in ("top_k", "threshold"):
            found[dictionary.inference] = dictionary.encode(x)
        activations = dictionary.every_latent(x)
    above = torch.where(activations > dictionary.threshold, activations, 0)
    torch.testing.assert_close(found["threshold"], above)
    assert (found["top_k"] > 0).sum() <= 3 * len(x)
    assert not torch.equal(found["top_k"], found["threshold"])


def test_gradients_are_clipped_to_norm_one():
    trainer = make("standard_new")
    seen = []
    step = trainer.optimizer.adam.step

    def spy():
        grads = [p.grad.flatten() for p in trainer.dictionary.parameters()]
        seen.append(torch.cat(grads).norm().item())
        step()

    trainer.optimizer.adam.step = spy
    trainer.update(0, 1000 * next(data(1)))
    assert seen == [pytest.approx(1.0, rel=1e-4)]


def test_the_registry_refuses_a_second_of_one_name():
    class Again(StandardNew):
        name = "standard_new"

    with pytest.raises(ValueError, match=r"'standard_new'.*already registered"):
        architectures.register(Again)


def test_the_registry_refuses_an_architecture_that_lacks_something():
    class Half(Architecture):
        name = "half"
        version = 1
        sparsity = "k"
        Settings = StandardNew.Settings

    with pytest.raises(ValueError, match="lacks trainer_class, dict_class, example"):
        architectures.register(Half)


@pytest.mark.parametrize("name", architectures.names())
def test_an_example_is_complete_and_has_two_sparsities(name):
    kind = architectures.get(name)
    assert len(kind.Settings.model_validate(kind.example).sweep) == 2


def test_an_unknown_architecture_is_told_the_nearest():
    with pytest.raises(SaemakeError, match="no architecture 'topk'; did you mean 'top_k'"):
        architectures.get("topk")


@pytest.mark.parametrize("name", architectures.names())
def test_an_sae_with_a_weight_that_is_no_number_is_refused(name, tmp_path):
    trainer = make(name)
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer.trainer_config()}))
    (tmp_path / "ae.pt").write_bytes(files.sae_bytes(trainer.dictionary))
    assert files.load(tmp_path, name, 64, CPU).width == 64
    trainer.dictionary.encoder_weight.data[1, 2] = -torch.nan
    (tmp_path / "ae.pt").write_bytes(files.sae_bytes(trainer.dictionary))
    with pytest.raises(SaemakeError, match="a weight in it is no finite number"):
        files.load(tmp_path, name, 64, CPU)
