"""Frozen results of both recipes: they change when the maths of an architecture does, and then its
`version` must be raised, for the version is what makes trained SAEs stale.

After that:  .venv/bin/python tests/unit/test_frozen.py  writes them anew.
"""

import json
from pathlib import Path

import pytest

if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1]))

from unit.test_architectures import KEPT, data, make

from saemake import architectures
from saemake.training.settings import Training

FROZEN = Path(__file__).with_name("frozen.json")
RECIPES = Training.model_fields["recipe"].annotation.__args__
STEPS = 60
# Latents die soon; p does not fall so far that rounding decides.
MORE = {name: {"dead_after_tokens": 96} for name in KEPT}
MORE["p_anneal"] = {"p_end": 0.8}


def results(name, recipe):
    """The version, and of every tensor of the state its norm and its mean size."""
    trainer = make(name, recipe=recipe, steps=STEPS, **MORE.get(name, {}))
    for step, x in enumerate(data(STEPS)):
        trainer.update(step, x)
    state = trainer.dictionary.state_dict().items()
    return {
        "version": trainer.version,
        **{key: [float(f"{v:.6g}") for v in _digest(value)] for key, value in state},
    }


def _digest(value):
    return value.double().norm().item(), value.double().abs().mean().item()


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", architectures.names())
def test_the_maths_is_what_its_version_says(name, recipe):
    frozen = json.loads(FROZEN.read_text())[name][recipe]
    found = results(name, recipe)
    tensors = set(found) - {"version"}
    same = all(found[key] == pytest.approx(frozen[key], rel=1e-3, abs=1e-5) for key in tensors)
    if found["version"] == frozen["version"]:
        assert same, f"the maths of {name} changed: raise its version, then freeze it anew"
    else:
        pytest.fail(f"{name} has a new version: freeze it (see the head of {__file__})")


def test_the_two_recipes_are_frozen_apart_where_they_differ():
    frozen = json.loads(FROZEN.read_text())
    alike = {name for name, values in frozen.items() if len({str(v) for v in values.values()}) == 1}
    assert alike == {"standard", "standard_new", "gated", "p_anneal"}


if __name__ == "__main__":
    everything = {
        name: {recipe: results(name, recipe) for recipe in RECIPES}
        for name in architectures.names()
    }
    FROZEN.write_text(json.dumps(everything, indent=1) + "\n")
