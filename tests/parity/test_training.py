"""Recipe `dictionary_learning` against the trainers of dictionary-learning 0.1.0: from the same
weights, on the same batches, every parameter, buffer and threshold stays the library's.

Once with the library's Adam as it is, and once with torch's fused kernel in it, which is ours.
Where p is far below 1 only few steps can be compared: the gradient of f^p near f = 0 makes of a
rounding difference a large one.

An activation that lies within rounding of a threshold may fall on either side of it, after which
two runs part for good. So each comparison has three texts, of which one must agree to the end: a
difference in the maths parts them in all.
"""

import pytest
import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.p_anneal import PAnnealTrainer
from dictionary_learning.trainers.standard import StandardTrainer, StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import TopKTrainer
from peers import SHARED
from unit.test_architectures import KEPT, make

from saemake import architectures

STEPS, WARMUP, DECAY_START = 200, 20, 160
D_MODEL, WIDTH, BATCH, RATE = 16, 64, 32, 1e-3
DEAD_AFTER = 5 * BATCH
PENALTY = {"sparsity_warmup_steps": 30}
TOP_K = {"auxk_alpha": 1 / 32, "threshold_beta": 0.9, "threshold_start_step": 50}
ANNEAL = {
    **PENALTY,
    "sparsity_function": "Lp^p",
    "p_start": 1.0,
    "p_end": 0.8,
    "anneal_start": 40,
    "n_sparsity_updates": 10,
    "sparsity_queue_length": 10,
}
GROUPS = {"group_fractions": [0.25, 0.25, 0.5]}
# The library's trainer, what both are given, and how the library calls the sparsity.
PEERS = {
    "standard": (StandardTrainer, PENALTY, "l1_penalty"),
    "standard_new": (StandardTrainerAprilUpdate, PENALTY, "l1_penalty"),
    "gated": (GatedSAETrainer, PENALTY, "l1_penalty"),
    "p_anneal": (PAnnealTrainer, ANNEAL, "initial_sparsity_penalty"),
    "jump_relu": (JumpReluTrainer, {**PENALTY, "bandwidth": 0.05}, "target_l0"),
    "top_k": (TopKTrainer, TOP_K, "k"),
    "batch_top_k": (BatchTopKTrainer, TOP_K, "k"),
    "matryoshka_batch_top_k": (MatryoshkaBatchTopKTrainer, {**TOP_K, **GROUPS}, "k"),
}


def batches(text=0):
    """Sparse combinations of directions, of norm about 1, as normalised activations are."""
    generator = torch.Generator().manual_seed(text)
    directions = torch.randn(48, D_MODEL, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    for _ in range(STEPS):
        chosen = torch.rand(BATCH, 48, generator=generator) < 0.1
        noise = 0.05 * torch.randn(BATCH, D_MODEL, generator=generator)
        yield (chosen * torch.rand(BATCH, 48, generator=generator)) @ directions + noise


def pair(
    name,
    *,
    fused,
    recipe="dictionary_learning",
    kind=None,
    decay_start_fraction=DECAY_START / STEPS,
    **more,
):
    """Our trainer and the library's (or `kind`), of the same hyperparameters and the same weights;
    `fused`: with torch's fused kernel in the library's Adam."""
    librarys, shared, sparsity_name = PEERS[name]
    kind = kind or librarys
    own = {"dead_after_tokens": DEAD_AFTER} if name in KEPT else {}
    ours = make(
        name,
        recipe=recipe,
        d_model=D_MODEL,
        width=WIDTH,
        steps=STEPS,
        learning_rate=RATE,
        warmup_steps=WARMUP,
        decay_start_fraction=decay_start_fraction,
        **{**shared, **own, **more},
    )
    theirs = kind(
        steps=STEPS,
        activation_dim=D_MODEL,
        dict_size=WIDTH,
        layer=0,
        lm_name="none",
        lr=RATE,
        warmup_steps=WARMUP,
        decay_start=DECAY_START if decay_start_fraction < 1 else None,
        device="cpu",
        seed=0,
        **{**shared, **more, sparsity_name: ours.sparsity_value},
    )
    if fused:
        for group in theirs.optimizer.param_groups:
            group.update(fused=True, foreach=False)
    theirs.dead_feature_threshold = DEAD_AFTER
    theirs.ae.load_state_dict(ours.dictionary.state_dict())
    return ours, theirs


def differences(ours, theirs):
    """What is not within 1e-5 of the library's, relative to it or to the largest beside it."""
    expected = theirs.ae.state_dict()
    assert set(expected) == set(ours.dictionary.state_dict())
    found = []
    for key, value in ours.dictionary.state_dict().items():
        scale = expected[key].abs().max().item()
        if not torch.allclose(value, expected[key], rtol=1e-5, atol=1e-5 * scale):
            found.append(f"{key} by up to {(value - expected[key]).abs().max():.2e} of {scale:.2g}")
    return found


def run(ours, theirs, text, seeded=False):
    """Train both on a text; the number of steps with an AuxK loss. `seeded`: draw alike."""
    auxk = 0
    for step, x in enumerate(batches(text)):
        if seeded:
            ours.generator.manual_seed(step)
            torch.manual_seed(step)
        forward = ours.update(step, x)
        theirs.update(step, x.clone())
        auxk += bool(forward.parts.get("auxk", torch.tensor(0.0)) > 0)
    return auxk


def agreeing(name, prepare=lambda ours, theirs: None, seeded=False, **arguments):
    """Ours, the library's and the steps with AuxK, after the first text that they agree on."""
    seen = []
    for text in range(3):
        ours, theirs = pair(name, **arguments)
        prepare(ours, theirs)
        auxk = run(ours, theirs, text, seeded)
        found = differences(ours, theirs)
        if not found:
            return ours, theirs, auxk
        seen.append(f"text {text}: {', '.join(found)}")
    pytest.fail("\n".join(seen))


@pytest.mark.parametrize("fused", [False, True], ids=["library's Adam", "fused Adam"])
@pytest.mark.parametrize("name", PEERS)
def test_200_steps_end_where_the_librarys_do(name, fused):
    ours, theirs, auxk = agreeing(name, fused=fused)
    if name in KEPT:
        assert auxk > 20
        assert (ours.tokens_since_fired_F == theirs.num_tokens_since_fired).all()
        assert ours.dictionary.threshold > 0
    if name == "p_anneal":
        assert theirs.p_step_count > 3
        assert ours.coefficient == pytest.approx(theirs.sparsity_coeff, rel=1e-5)
        assert (ours.p, ours.next_p) == (theirs.p, theirs.next_p)


@pytest.mark.parametrize("name", ["standard", "p_anneal"])
def test_resampling_is_the_librarys(name, capsys):
    """Both draw from generators of the same state; half of the latents are dead from the start."""

    def kill_half(ours, theirs):
        for dictionary in (ours.dictionary, theirs.ae):
            dictionary.encoder.bias.data[: WIDTH // 2] = -10.0

    agreeing(name, kill_half, seeded=True, fused=True, decay_start_fraction=1.0, resample_steps=45)
    assert "resampling" in capsys.readouterr().out


@pytest.mark.parametrize("function", ["Lp", "Lp^p"])
def test_both_sparsity_functions_of_p_anneal(function):
    agreeing("p_anneal", fused=True, sparsity_function=function)


@pytest.mark.parametrize("function", ["Lp", "Lp^p"])
def test_small_powers_of_p_anneal(function):
    low = {"p_start": 0.2, "p_end": 0.2, "sparsity_warmup_steps": 0, "sparsity_function": function}
    ours, theirs = pair("p_anneal", fused=True, **low)
    for step, x in zip(range(3), batches(), strict=False):
        ours.update(step, x)
        theirs.update(step, x.clone())
    assert not differences(ours, theirs)


def test_every_architecture_of_the_library_is_compared_with_it():
    assert set(PEERS) == set(SHARED)
    for name, (kind, *_) in PEERS.items():
        assert architectures.get(name).trainer_class == kind.__name__
