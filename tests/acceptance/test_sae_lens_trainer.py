"""jump_relu_tanh against SAELens's own trainer, in an environment of its own: from the same weights
and on the same batches every parameter stays SAELens's."""

import subprocess
from pathlib import Path

import pytest
import torch
from conftest import PROJECT
from parity.test_training import BATCH, D_MODEL, STEPS, WIDTH, batches
from unit.test_architectures import make

pytestmark = pytest.mark.acceptance
PEER = PROJECT / ".venv-saebench" / "bin" / "python"
TRAINER = Path(__file__).with_name("train_with_sae_lens.py")
RATE, WARMUP, WINDOW, TEXTS = 1e-3, 50, 5, 3


def trainer_of(ste_to_input):
    """Ours, with latents that are dead from early on."""
    trainer = make(
        "jump_relu_tanh",
        d_model=D_MODEL,
        width=WIDTH,
        steps=STEPS,
        learning_rate=RATE,
        warmup_steps=0,
        decay_start_fraction=1.0,
        sparsity_warmup_steps=WARMUP,
        bandwidth=0.5,
        ste_to_input=ste_to_input,
        pre_act_loss_coefficient=0.01,
        # SAELens counts steps, and a latent is dead after more than its window.
        dead_after_tokens=WINDOW * BATCH + 1,
    )
    first = next(iter(batches()))
    trainer.start(first, first)
    trainer.dictionary.b_enc.data[::4] -= 3.0
    # Biases stay those that SAELens is given.
    trainer.start = lambda x_BD, y_BD: None
    return trainer


def job_of(ste_to_input, text):
    """The same for SAELens. Its activations have the norm that our trainer gives them."""
    trainer = trainer_of(ste_to_input)
    settings = trainer.settings
    return {
        "settings": {
            "d_in": D_MODEL,
            "d_sae": WIDTH,
            "jumprelu_init_threshold": settings.initial_threshold,
            "jumprelu_bandwidth": settings.bandwidth,
            "jumprelu_sparsity_loss_mode": "tanh",
            "jumprelu_tanh_scale": settings.tanh_scale,
            "jumprelu_ste_to_input": ste_to_input,
            "l0_coefficient": trainer.sparsity_value,
            "l0_warm_up_steps": WARMUP,
            "pre_act_loss_coefficient": settings.pre_act_loss_coefficient,
            "apply_b_dec_to_input": False,
        },
        "window": WINDOW,
        "rate": RATE,
        "weights": {k: v.clone().contiguous() for k, v in trainer.dictionary.state_dict().items()},
        "batches": torch.stack(list(batches(text))) * trainer.unit,
    }


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What SAELens trains, by whether the estimate reaches the input, and the text."""
    root = tmp_path_factory.mktemp("sae_lens")
    cases = [(ste, text) for ste in (True, False) for text in range(TEXTS)]
    torch.save([job_of(*case) for case in cases], root / "job.pt")
    done = subprocess.run(
        [str(PEER), str(TRAINER), str(root)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return dict(zip(cases, torch.load(root / "trained.pt", weights_only=True), strict=True))


@pytest.mark.parametrize("ste_to_input", [True, False])
def test_every_parameter_stays_sae_lenss(theirs, ste_to_input):
    """One of three texts must agree to the end: rounding may let a latent fire or not."""
    seen = []
    for text in range(TEXTS):
        trainer, expected = trainer_of(ste_to_input), theirs[ste_to_input, text]
        losses = expected["losses"]
        parts = []
        for step, x in enumerate(batches(text)):
            forward = trainer.update(step, x)
            scale = trainer.sparsity_value * trainer.schedule(step)["sparsity_scale"]
            parts.append(
                {
                    "mse_loss": forward.parts["l2"] * D_MODEL,
                    "l0_loss": forward.parts["sparsity"] * scale,
                    "pre_act_loss": forward.parts["pre_act"] * 0.01,
                }
            )
        assert sum(loss > 0 for loss in losses["pre_act_loss"]) > STEPS // 2
        for name, values in losses.items():
            ours = torch.stack([part[name] for part in parts])
            torch.testing.assert_close(ours[:3], torch.tensor(values[:3]), rtol=1e-5, atol=1e-6)
        # SAELens does this before the next step.
        expected["weights"]["threshold"].clamp_(min=0)
        furthest = {
            key: ((value - expected["weights"][key]).abs().max() / value.abs().max()).item()
            for key, value in trainer.dictionary.state_dict().items()
        }
        print(f"\ntext {text}: {furthest}")
        if max(furthest.values()) < 1e-5:
            return
        seen.append(furthest)
    pytest.fail(str(seen))
