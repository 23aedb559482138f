"""Transcoders of every architecture: what they read, what they must reconstruct, and what is saved.

Shapes: B tokens of a batch, N tokens of a text, D the model's width, F latents.
"""

import pytest
import torch
from unit.test_architectures import CPU, OWN, SPARSITY, data

from saemake import architectures
from saemake.activations.buffer import ActivationBuffer
from saemake.activations.dropping import Dropping
from saemake.architectures.relu import ReluDictionary
from saemake.architectures.training_settings import Training
from saemake.base.errors import SaemakeError
from saemake.evaluation.codecs import Coded, reconstructed
from saemake.evaluation.dictionary_learning import judge as dictionary_learning
from saemake.evaluation.running import Variance
from saemake.evaluation.sae_bench_core import judge as sae_bench_core
from saemake.text.shards import Contexts

NAMES = [name for name in architectures.names() if architectures.get(name).transcodes]
D_MODEL, WIDTH, STEPS = 16, 64, 100


def make(name, *, skip=False, recipe="saebench", autocast="float32", **settings):
    kind = architectures.get(name)
    training = Training(
        recipe=recipe,
        seed=0,
        batch_tokens=32,
        norm_batches=1,
        learning_rate=1e-2,
        warmup_steps=5,
        decay_start_fraction=0.8,
        autocast=autocast,
        cpu_threads=1,
    )
    sparsity = SPARSITY[name]
    values = {**kind.example, **OWN.get(name, {}), "sweep": [sparsity], **settings}
    return kind.trainer()(
        d_model=D_MODEL,
        width=WIDTH,
        sparsity=sparsity,
        settings=kind.Settings(**values),
        training=training,
        steps=STEPS,
        device=CPU,
        is_transcoder=True,
        with_skip=skip,
    )


def pairs(steps=STEPS):
    """Batches, and targets that are a function of them with a kink: what an MLP does."""
    generator = torch.Generator().manual_seed(3)
    within = torch.randn(4 * D_MODEL, D_MODEL, generator=generator)
    out = torch.randn(D_MODEL, 4 * D_MODEL, generator=generator) / 8
    for x in data(steps):
        yield x, torch.relu(x @ within.T) @ out.T + 0.5


def trained(name, steps=STEPS, **more):
    trainer = make(name, **more)
    for step, (x, y) in enumerate(pairs(steps)):
        forward = trainer.update(step, x, y)
    return trainer, forward, x, y


def test_a_transcoder_by_hand():
    dictionary = ReluDictionary(2, 2)
    dictionary.transcode(skip=True)
    with torch.no_grad():
        dictionary.encoder.weight.copy_(torch.tensor([[1.0, 0], [0, -1]]))
        dictionary.encoder.bias.copy_(torch.tensor([0.5, 0]))
        dictionary.decoder.weight.copy_(torch.tensor([[2.0, 0], [0, 3]]))
        dictionary.bias.copy_(torch.tensor([10.0, 20]))
        dictionary.W_skip.copy_(torch.tensor([[0.0, 1], [0, 0]]))
        x = torch.tensor([[1.0, 2.0], [-1, -2]])
        f, y = dictionary.encode(x), dictionary(x)
    # The decoder's bias, 10 and 20, is not subtracted from what is read.
    assert f.tolist() == [[1.5, 0], [0, 2]]
    # Rows times latents, and the bias, and of the first number what was read second.
    assert y.tolist() == [[2 * 1.5 + 10 + 2, 20], [10 - 2, 3 * 2 + 20]]
    assert torch.equal(reconstructed(dictionary, x), y)
    assert torch.equal(Coded(dictionary, x).x_hat_ND, y)


def test_figures_are_of_the_written_site():
    class Lm:
        d_model, device = 2, CPU

    dictionary = ReluDictionary(2, 2)
    dictionary.transcode(skip=True)
    with torch.no_grad():
        dictionary.encoder.weight.copy_(torch.eye(2))
        dictionary.encoder.bias.zero_()
        dictionary.decoder.weight.copy_(torch.tensor([[0.0, 1], [1, 0]]))
        dictionary.bias.copy_(torch.tensor([1.0, 0]))
        dictionary.W_skip.copy_(torch.eye(2))
    dictionary.requires_grad_(False)
    # The latents are (3, 0) and (0, 2), so it predicts (1 + 3, 3) and (1 + 2, 2).
    x, y = torch.tensor([[3.0, 0], [0, 2]]), torch.tensor([[4.0, 3], [3, 6]])
    running = dictionary_learning._Running(dictionary, Lm())
    assert running.add(x, y).tolist() == [[4, 3], [3, 2]]
    running.loss.add(torch.tensor([2.0]))
    figures = running.judgement(clean=1.0, ablated=5.0, variance=2.5).figures
    assert (figures["l0"], figures["l2_loss"]) == (1, (0 + 4) / 2)
    # The residuals are (0, 0) and (0, 4), of variance 4 in all.
    assert figures["frac_variance_explained"] == pytest.approx(1 - 4 / 2.5)
    assert figures["frac_recovered"] == (5 - 2) / (5 - 1)
    activity = sae_bench_core._Activity(dictionary, Lm(), mended=True)
    activity.add(sae_bench_core._Batch(x, y, torch.tensor([0, 0]), 1))
    variance = Variance(2, CPU)
    variance.add(y)
    core = activity.figures(variance)
    assert core["mse"] == (0 + 16) / 4
    assert core["l2_norm_in"] == pytest.approx((5 + 45**0.5) / 2)
    assert core["explained_variance"] == pytest.approx(1 - 8 / (0.25 + 2.25))
    # Directions of two sites have no cosine.
    assert activity.latents()["encoder_decoder_cosine_sim"].isnan().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("skip", [False, True])
def test_training_lowers_the_error_against_the_target(name, skip):
    trainer = make(name, skip=skip)
    losses = [trainer.update(step, x, y).parts["l2"].item() for step, (x, y) in enumerate(pairs())]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("recipe", Training.model_fields["recipe"].annotation.__args__)
def test_the_loss_is_of_the_target(name, recipe):
    _, forward, x, y = trained(name, skip=True, recipe=recipe)
    expected = (forward.x_hat_BD.float() - y).pow(2).sum(dim=-1).mean()
    assert forward.parts["l2"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert (forward.x_hat_BD - x).pow(2).sum(dim=-1).mean() > 2 * expected


@pytest.mark.parametrize("name", NAMES)
def test_the_skip_connection_is_trained_and_helps(name):
    plain, skip = trained(name)[1], trained(name, skip=True)
    assert skip[0].dictionary.W_skip.abs().max() > 0.01
    assert skip[1].parts["l2"] < plain.parts["l2"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("skip", [False, True])
def test_what_is_saved_takes_raw_activations_and_gives_raw_targets(name, skip):
    trainer, _, x, _ = trained(name, skip=skip)
    inside, saved = trainer.finished(1.0), trainer.finished(4.0, 0.5)
    with torch.no_grad():
        before, after = inside(x), saved(4.0 * x)
        torch.testing.assert_close(saved.encode(4.0 * x), 0.5 * inside.encode(x))
    torch.testing.assert_close(after, 0.5 * before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(saved.decoder_rows, inside.decoder_rows)
    assert before.abs().max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_at_the_targets_mean_with_centred_latents(name):
    trainer = make(name, skip=True)
    x, y = next(pairs())
    trainer.start(x, y)
    dictionary = trainer.dictionary
    torch.testing.assert_close(dictionary.output_bias.data, y.mean(dim=0))
    encoded = x @ dictionary.encoder_weight.T + dictionary.encoder_bias
    torch.testing.assert_close(encoded.mean(dim=0), torch.zeros(WIDTH), rtol=0, atol=1e-5)
    assert not dictionary.W_skip.any()
    rows = dictionary.decoder_rows
    unit = trainer.constraint.unit_norm is not None
    assert torch.allclose(rows.norm(dim=1), torch.full((WIDTH,), float(unit)), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("skip", [False, True])
def test_its_config_describes_it(name, skip):
    trainer, *_, x, _ = trained(name, skip=skip)
    config = trainer.trainer_config()
    assert (config["transcoder"], config["skip"]) == (True, skip)
    again = type(trainer).described_dictionary(config)
    again.load_state_dict(trainer.dictionary.state_dict())
    with torch.no_grad():
        assert torch.equal(again(x), trainer.dictionary(x))
    assert ("W_skip" in again.state_dict()) == skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("skip", [False, True])
def test_a_snapshot_goes_on_with_the_same_bytes(name, skip):
    whole, half, rest = (make(name, skip=skip) for _ in range(3))
    batches = list(pairs(12))
    for step, (x, y) in enumerate(batches):
        whole.update(step, x, y)
        if step < 6:
            half.update(step, x, y)
    rest.load_state(half.state())
    for step in range(6, 12):
        rest.update(step, *batches[step])
    expected = whole.dictionary.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in rest.dictionary.state_dict().items())


@pytest.mark.parametrize("recipe", Training.model_fields["recipe"].annotation.__args__)
def test_dead_latents_learn_the_targets_residual(recipe):
    trainer = make("top_k", recipe=recipe, dead_after_tokens=32)
    parts = [trainer.update(step, x, y).parts for step, (x, y) in enumerate(pairs(20))]
    assert parts[-1]["auxk"] > 0


def test_a_resampled_latent_reads_a_token_and_writes_its_target():
    trainer = make("standard", resample_steps=50)
    x, y = next(pairs())
    trainer.update(0, x, y)
    dead = torch.zeros(WIDTH, dtype=torch.bool)
    dead[5] = True
    from saemake.architectures.relu import resample

    resample(trainer, x, y, dead)
    read = torch.nn.functional.normalize(trainer.dictionary.encoder.weight[5], dim=0)
    token = (torch.nn.functional.normalize(x, dim=1) @ read).argmax()
    written = trainer.dictionary.decoder.weight[:, 5]
    torch.testing.assert_close(written, torch.nn.functional.normalize(y[token], dim=0))


def test_the_variant_with_a_skip_connection_is_the_architecture_by_another_name():
    kind, variant = architectures.get("top_k"), architectures.get("top_k_skip")
    assert (variant.name, variant.skip, kind.skip) == ("top_k_skip", True, False)
    assert variant.trainer() is kind.trainer()
    assert variant.Settings is kind.Settings
    assert "top_k_skip" in architectures.variants()
    assert "top_k_skip" not in architectures.names()
    assert architectures.base_name("top_k_skip") == architectures.base_name("top_k") == "top_k"
    with pytest.raises(SaemakeError, match="no architecture 'tope_k_skip'"):
        architectures.get("tope_k_skip")


def contexts_of(count):
    ids = torch.arange(1, 1 + count).view(-1, 5)
    return Contexts(ids, torch.ones_like(ids))


def buffer(captured, **more):
    return ActivationBuffer(
        captured,
        d_model=2,
        capacity_tokens=20,
        batch_tokens=4,
        seed=0,
        dtype=torch.float32,
        device=CPU,
        **more,
    )


def captures(parts, large=()):
    """Activations that tell their token, and targets that are ten times as much; of the tokens
    in `large` the targets are far larger."""
    for start in range(0, 100, parts):
        contexts = contexts_of(100)
        piece = Contexts(contexts.ids.view(-1)[start : start + parts].view(-1, 5), None)
        piece = Contexts(piece.ids, torch.ones_like(piece.ids))
        x = piece.ids[..., None].expand(-1, -1, 2).float()
        factor = torch.where(torch.isin(piece.ids, torch.tensor(large)), 1e6, 10.0)
        yield piece, x, x * factor[..., None]


def test_batches_and_targets_are_shuffled_together_and_resumed_together():
    first = buffer(captures(10))
    for _ in range(3):
        x, y = first.pair()
        assert torch.equal(y, 10 * x)
    state = first.state()
    rest = captures(10)
    for _ in range(state["batches_read"]):
        next(rest)
    second = buffer(rest)
    second.load_state(state)
    drawn = [(first.pair(), second.pair()) for _ in range(20)]
    assert all(torch.equal(a, b) for one, other in drawn for a, b in zip(one, other, strict=True))
    assert torch.cat([y for (_, y), _ in drawn]).unique().numel() == 160 // 2


def test_a_position_that_is_left_out_at_one_site_is_left_out_at_both():
    dropping = Dropping(norm_over_median=5)
    kept = buffer(captures(50, large=[7, 31]), dropping=dropping)
    drawn = torch.cat([kept.pair()[0][:, 0] for _ in range(24)]).int().tolist()
    assert not {7, 31} & set(drawn)
    assert kept.dropped_by_norm == pytest.approx(2 / 100)
