"""The real loaders read every ae.pt of small sweeps of all eight architectures:
dictionary_learning's beside us, SAE Bench's and SAELens's in an environment of their own; and
SAELens what is exported in its own format."""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import CONFIG_FILE, DEMO_LM, LAYER, PROJECT, SMALL, Workflow, copied, raw_config
from dictionary_learning.utils import load_dictionary
from peers import SHARED

from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.paths.files import SAELENS_FILES
from saemake.paths.names import Sweep
from saemake.paths.sweeps import members
from saemake.publishing import saelens
from saemake.text.shards import Tokens
from saemake.training import files

pytestmark = pytest.mark.acceptance
PEERS = PROJECT / ".venv-saebench" / "bin" / "python"
READER = Path(__file__).with_name("read_with_peers.py")
REVISION = "0" * 40
CPU = torch.device("cpu")
CONFIG = read(raw_config(SMALL), PROJECT, [CONFIG_FILE])
SWEEPS = [members(CONFIG, Sweep("demo", Hookpoint(3), name, "256")) for name in SHARED]


@pytest.fixture(scope="module")
def trained(begun: Workflow, tmp_path_factory) -> Workflow:
    """A small sweep of each architecture."""
    made = copied(begun, tmp_path_factory.mktemp("trained"))
    made.succeed(*(f"{sweep[0].folder}/ae.pt" for sweep in SWEEPS), "--cores", "2")
    return made


@pytest.fixture(scope="module")
def saes(trained):
    """The folders of all SAEs under the layer, relative to it."""
    layer = trained.folder / LAYER
    found = [
        path.parent.relative_to(layer)
        for name in SHARED
        for path in sorted(layer.glob(f"{name}/256/*/ae.pt"))
    ]
    assert len(found) == sum(map(len, SWEEPS)) >= 2 * len(SHARED)
    return layer, found


@pytest.fixture(scope="module")
def activations(trained):
    """Raw activations [N, D] of the demo's LM on held-out text."""
    lm = LanguageModel(Weights("demo", DEMO_LM, None, "float32"), Hookpoint(3), CPU, whole=False)
    tokens = Tokens(trained.folder / "results/demo/tokens/dictionary_learning/manifest.json")
    contexts = next(tokens.contexts(8))
    return lm.capture(contexts)[contexts.mask.bool()].float()


@pytest.fixture(scope="module")
def our_latents(saes, activations):
    layer, found = saes
    results = {}
    for folder in found:
        sae = files.load(layer / folder, folder.parts[0], 256, CPU)
        with torch.no_grad():
            results[str(folder)] = sae.encode(activations)
    return results


@pytest.fixture(scope="module")
def ours(saes, our_latents):
    layer, found = saes
    results = {}
    for folder in found:
        sae = files.load(layer / folder, folder.parts[0], 256, CPU)
        with torch.no_grad():
            results[str(folder)] = sae.decode(our_latents[str(folder)])
    return results


@pytest.fixture(scope="module")
def exported(trained):
    """The folder of all SAEs in SAELens's format: of each architecture one by the rule, the others
    by what the rule calls, a job each being slow."""
    trained.succeed(*(f"saelens/{sweep[0]}/{SAELENS_FILES[0]}" for sweep in SWEEPS))
    with contextlib.chdir(trained.folder):
        for sae in (sae for sweep in SWEEPS for sae in sweep[1:]):
            folder = Path("saelens", str(sae))
            folder.mkdir(parents=True)
            for name, content in zip(SAELENS_FILES, saelens.export(CONFIG, sae), strict=True):
                (folder / name).write_bytes(content)
    return trained.folder / "saelens" / "demo" / "L3"


@pytest.fixture(scope="module")
def peers(saes, activations, exported, tmp_path_factory):
    """What SAE Bench's and SAELens's loaders reconstruct, by loader and folder. The files are laid
    out as the Hub's client caches them, so that it is asked for real."""
    layer, found = saes
    root = tmp_path_factory.mktemp("peers")
    repository = root / "hub" / "models--saemake--demo"
    snapshot = repository / "snapshots" / REVISION
    for folder in found:
        for place in (snapshot, root / "downloaded"):
            (place / folder).mkdir(parents=True)
            for name in ("ae.pt", "config.json"):
                shutil.copy(layer / folder / name, place / folder / name)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    (root / "saelens").symlink_to(exported)
    torch.save(activations, root / "activations.pt")
    (root / "folders.json").write_text(json.dumps([str(folder) for folder in found]))
    done = subprocess.run(
        [str(PEERS), str(READER), str(root)],
        cwd=root,
        env={**os.environ, "HF_HOME": str(root), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return {
        loader: torch.load(root / f"{loader}.pt", weights_only=True)
        for loader in ("sae_bench", "sae_lens", "exported", "latents")
    }


def agree(theirs, ours):
    """Within 1e-5 of the largest of the reconstructions; the worst of all, of them."""
    assert set(theirs) == set(ours)
    worst = 0.0
    for name, expected in ours.items():
        off = ((theirs[name] - expected).abs().max() / expected.abs().max()).item()
        assert off < 1e-5, f"{name}: {off:.2e}"
        worst = max(worst, off)
    return worst


def test_dictionary_learning_reads_every_one(saes, ours, activations):
    layer, found = saes
    theirs = {}
    for folder in found:
        sae, _ = load_dictionary(str(layer / folder), device="cpu")
        with torch.no_grad():
            theirs[str(folder)] = sae(activations)
    print(f"\ndictionary_learning: {len(theirs)} SAEs within {agree(theirs, ours):.1e}")


@pytest.mark.parametrize("loader", ["sae_bench", "sae_lens", "exported"])
def test_peers_read_every_one(peers, ours, loader):
    print(f"\n{loader}: {len(peers[loader])} SAEs within {agree(peers[loader], ours):.1e}")


def test_sae_lens_encodes_what_is_exported_to_the_same_latents(peers, our_latents):
    latents = peers["latents"]
    print(f"\nsae_lens: {len(latents)} SAEs within {agree(latents, our_latents):.1e}")
    for name, expected in our_latents.items():
        fire, expected_fire = latents[name] > 0, expected > 0
        # Rounding may put a latent on the other side of a threshold, once in many.
        assert (fire != expected_fire).float().mean() < 1e-5, name
