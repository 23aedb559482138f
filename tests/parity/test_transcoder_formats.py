"""What SAELens 6.54 and circuit-tracer 0.5.0 make of our transcoders, of every architecture, plain
and with a skip connection: the same reconstructions.

SAELens is in the environment of `make sae-bench`. circuit-tracer's loader runs there too, from the
folder .venv-circuit-tracer, and is skipped where that is not:

    pip install --no-deps --target .venv-circuit-tracer circuit-tracer==0.5.0
"""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import CONFIG_FILE, PROJECT, SMALL, raw_config
from peers import SAE_BENCH
from unit.test_transcoders import NAMES, trained

from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import SaeName, Sweep
from saemake.publishing import circuit_tracer, saelens

TRACER = PROJECT / ".venv-circuit-tracer"
READER = Path(__file__).with_name("read_transcoders.py")
pytestmark = pytest.mark.skipif(not SAE_BENCH.exists(), reason="make sae-bench is not done")
# Both libraries have ReLUs and JumpReLUs only; abs_top_k keeps latents below 0.
EXPORTED = [name for name in NAMES if name != "abs_top_k"]
SKIPS = {"plain": False, "skip": True}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with the transcoders in both formats, activations, and what ours make of them."""
    root, ours = tmp_path_factory.mktemp("exported"), {}
    config = read(raw_config(SMALL), PROJECT, [CONFIG_FILE])
    x = torch.randn(500, 16, generator=torch.Generator().manual_seed(7))
    torch.save(x, root / "x.pt")
    for name in EXPORTED:
        for kind, skip in SKIPS.items():
            dictionary = trained(name, steps=30, skip=skip)[0].finished(2.0, 3.0).eval()
            if dictionary.inference is not None:
                dictionary.inference = "threshold"
            folder = root / "saelens" / f"{name}-{kind}"
            folder.mkdir(parents=True)
            (folder / "sae_weights.safetensors").write_bytes(saelens.weights(dictionary))
            (folder / "cfg.json").write_bytes(saelens.cfg(dictionary, {"hook_name": "here"}))
            folder = root / "circuit-tracer" / f"{name}-{kind}"
            folder.mkdir(parents=True)
            for layer in (0, 1):
                (folder / f"layer_{layer}.safetensors").write_bytes(
                    circuit_tracer.weights(dictionary)
                )
            sweep = Sweep("demo", Hookpoint.at(0, "mlp_in-mlp_out"), name, "256")
            described = circuit_tracer.config_yaml(config, SaeName(sweep, 4))
            (folder / "config.yaml").write_bytes(described)
            with torch.no_grad():
                ours[f"{name}-{kind}"] = dictionary(x)
                assert 0 < (dictionary.encode(x) > 0).float().mean() < 0.9
    return root, ours


def read_by(library, root, folder=None):
    path = {} if folder is None else {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [str(SAE_BENCH), str(READER), str(root), library],
        cwd=root,
        env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", **path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return torch.load(root / f"{library}.pt", weights_only=True)


def worst(found, expected):
    """The largest difference of reconstructions, relative to the largest of them."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_sae_lens_reads_every_one(exported):
    root, ours = exported
    theirs = read_by("sae_lens", root)
    assert set(theirs) == set(ours)
    off = {name: worst(theirs[name], expected) for name, expected in ours.items()}
    assert max(off.values()) < 1e-5, off
    print(f"\nSAELens: {len(off)} transcoders within {max(off.values()):.1e}")


@pytest.mark.skipif(not TRACER.is_dir(), reason=f"there is no {TRACER.name}")
def test_circuit_tracer_reads_every_one(exported):
    root, ours = exported
    theirs = read_by("circuit_tracer", root, TRACER)
    assert set(theirs) == {f"{name}/{layer}" for name in ours for layer in (0, 1)}
    off = {name: worst(y, ours[name.partition("/")[0]]) for name, y in theirs.items()}
    assert max(off.values()) < 1e-5, off
    print(f"\ncircuit-tracer: {len(off)} transcoders within {max(off.values()):.1e}")
