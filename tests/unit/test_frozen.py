"""Frozen results of what SAEs pass through: the architectures in both recipes, the text, the
buffer. They change when the maths does, and then its version must be raised, for the version is
what makes trained SAEs stale.

After that, or for a new architecture:

    .venv/bin/python tests/unit/test_frozen.py top_k    writes that architecture's anew (or several)
    .venv/bin/python tests/unit/test_frozen.py          all, the text's and the buffer's too
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import CONFIG_FILE, DEMO_LM, PROJECT, SMALL, raw_config
from peers import SHARED
from texts import tokenised
from unit.test_architectures import KEPT, data, make
from unit.test_buffer import make as make_buffer

from saemake import architectures
from saemake.architectures.training_settings import Training
from saemake.config.checks import read
from saemake.llm.weights import Weights
from saemake.paths.files import uses
from saemake.recipes.inputs import TOKENS_VERSION
from saemake.recipes.training import ACTIVATIONS_VERSION

FROZEN = Path(__file__).with_name("frozen.json")
RECIPES = Training.model_fields["recipe"].annotation.__args__
STEPS = 30
# Latents die soon; p does not fall so far that rounding decides.
MORE = {name: {"dead_after_tokens": 96} for name in KEPT}
MORE["p_anneal"] = {"p_end": 0.8}


def results(name, recipe):
    """The version, and of every tensor of what would be saved its norm and its mean size."""
    trainer = make(name, recipe=recipe, steps=STEPS, **MORE.get(name, {}))
    for step, x in enumerate(data(STEPS)):
        trainer.update(step, x)
    state = trainer.finished(scale=2.0).state_dict().items()
    return {
        "version": trainer.version,
        **{key: [float(f"{v:.8g}") for v in _digest(value)] for key, value in state},
    }


def _digest(value):
    return value.double().norm().item(), value.double().abs().mean().item()


def text_results(folder):
    """The version, and the shards' sha256 of a small part of the demo's text, for each use."""
    config = read(raw_config(SMALL), PROJECT, [CONFIG_FILE])
    weights = Weights("demo", DEMO_LM, None, "float32")
    sums = [
        shard["sha256"]
        for use in uses(config)
        for shard in tokenised(config, weights, use, folder).manifest["shards"]
    ]
    return {"version": TOKENS_VERSION, "shards": sums}


def buffer_results():
    """The version, and which token each draw is, over several fillings to the text's end."""
    buffer = make_buffer([7, 3, 5, 8, 2, 9, 4, 6] * 4, capacity=20, batch=4)
    draws = [int(token) for _ in range(44) for token in buffer.batch()[:, 0]]
    return {"version": ACTIVATIONS_VERSION, "draws": draws}


def test_the_text_is_what_its_version_says(tmp_path):
    assert text_results(tmp_path) == json.loads(FROZEN.read_text())["text"], (
        "the tokens changed: raise TOKENS_VERSION, then freeze them anew"
    )


def test_the_draws_are_what_their_version_says():
    assert buffer_results() == json.loads(FROZEN.read_text())["activations"], (
        "the draws changed: raise ACTIVATIONS_VERSION, then freeze them anew"
    )


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", architectures.names())
def test_the_maths_is_what_its_version_says(name, recipe):
    everything = json.loads(FROZEN.read_text())
    if name not in everything:
        pytest.fail(f"{name} is new: freeze it (see the head of {__file__})")
    frozen = everything[name][recipe]
    found = results(name, recipe)
    tensors = set(found) - {"version"}
    same = all(found[key] == pytest.approx(frozen[key], rel=1e-5, abs=1e-7) for key in tensors)
    if found["version"] == frozen["version"]:
        assert same, f"the maths of {name} changed: raise its version, then freeze it anew"
    else:
        pytest.fail(f"{name} has a new version: freeze it (see the head of {__file__})")


def test_the_two_recipes_are_frozen_apart_where_they_differ():
    frozen = json.loads(FROZEN.read_text())
    alike = {
        name for name in SHARED if frozen[name]["saebench"] == frozen[name]["dictionary_learning"]
    }
    assert alike == {"standard", "standard_new", "gated", "p_anneal"}


def freeze(names):
    """Write the results of those architectures anew; of no names, of all that is frozen."""
    everything = json.loads(FROZEN.read_text()) if names else {}
    for name in names or architectures.names():
        everything[name] = {recipe: results(name, recipe) for recipe in RECIPES}
    if not names:
        with tempfile.TemporaryDirectory() as folder:
            everything["text"] = text_results(Path(folder))
        everything["activations"] = buffer_results()
    FROZEN.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    freeze(sys.argv[1:])
