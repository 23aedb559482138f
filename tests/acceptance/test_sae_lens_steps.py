"""AbsTopK and matching pursuit against SAELens's own training classes, from the same weights on the
same batch: loss and gradients. And what is exported, these and HierarchicalTopK, against SAELens's
classes for inference."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from peers import SAE_BENCH
from unit.test_architectures import data, forward_of, make

from saemake.publishing import saelens

pytestmark = pytest.mark.acceptance
SCRIPT = Path(__file__).with_name("step_with_sae_lens.py")
SETTINGS = {
    "abs_top_k": {"auxk_alpha": 0.5, "dead_after_tokens": 64},
    "matching_pursuit": {},
    "hierarchical_top_k": {},
}
# SAELens's names of our parameters, and how they lie there.
NAMES = {
    "encoder.weight": ("W_enc", True),
    "encoder.bias": ("b_enc", False),
    "decoder.weight": ("W_dec", True),
    "b_dec": ("b_dec", False),
    "W_dec": ("W_dec", False),
}
DEAD = 5


def prepared(name):
    """A trainer in the midst of its training, and a batch; of AbsTopK some latents are dead."""
    trainer = make(name, width=48, **SETTINGS[name])
    *before, x = data(20)
    for step, earlier in enumerate(before):
        trainer.update(step, earlier)
    if name == "abs_top_k":
        fired_F = trainer.dictionary.encode(x).count_nonzero(dim=0) > 0
        trainer.tokens_since_fired_F.zero_()
        trainer.tokens_since_fired_F[(~fired_F).nonzero()[:DEAD, 0]] = 64
    return trainer, x


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """By architecture: our trainer, the batch, and what SAELens computes."""
    root = tmp_path_factory.mktemp("sae_lens")
    made, jobs = {}, []
    for name in SETTINGS:
        trainer, x = made[name] = prepared(name)
        given = {"x": x, "dead": trainer.tokens_since_fired_F >= 64}
        for ours, value in trainer.dictionary.named_parameters():
            theirs, turned = NAMES[ours]
            given[theirs] = (value.T if turned else value).detach().contiguous()
        torch.save(given, root / f"{name}.pt")
        folder = root / "saelens" / name
        folder.mkdir(parents=True)
        (folder / "sae_weights.safetensors").write_bytes(saelens.weights(trainer.dictionary))
        metadata = {"sae_lens_version": saelens.SAELENS}
        (folder / "cfg.json").write_bytes(saelens.cfg(trainer.dictionary, metadata))
        job = {"architecture": name, "k": trainer.dictionary.k, "auxk_alpha": 0.5}
        jobs.append({**job, "trains": name != "hierarchical_top_k"})
    (root / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [str(SAE_BENCH), str(SCRIPT), str(root)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return {
        name: (*pair, torch.load(root / f"{name}_found.pt", weights_only=True))
        for name, pair in made.items()
    }


@pytest.mark.parametrize("name", ["abs_top_k", "matching_pursuit"])
def test_loss_and_gradients_are_saelens(compared, name):
    trainer, x, theirs = compared[name]
    forward = forward_of(trainer, x, step=20)
    forward.loss.backward()
    assert name != "abs_top_k" or forward.parts["auxk"] > 0
    torch.testing.assert_close(forward.loss, theirs["loss"], rtol=1e-5, atol=0)
    worst = 0.0
    for ours, parameter in trainer.dictionary.named_parameters():
        key, turned = NAMES[ours]
        expected = theirs[key].T if turned else theirs[key]
        worst = max(worst, ((parameter.grad - expected).abs().max() / expected.abs().max()).item())
    print(f"\n{name}: gradients within {worst:.1e} of their largest")
    assert worst < 1e-5


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_sae_lens_computes_what_is_exported(compared, name):
    trainer, x, theirs = compared[name]
    f = trainer.dictionary.encode(x)
    assert f.any()
    torch.testing.assert_close(theirs["latents"], f, rtol=1e-5, atol=1e-6)
    reconstructed = trainer.dictionary.decode(f)
    torch.testing.assert_close(theirs["reconstructed"], reconstructed, rtol=1e-5, atol=1e-6)
