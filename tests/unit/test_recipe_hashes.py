"""Recipe hashes of SAEs and baselines, recorded before the package was cut into rooms.

What was trained by such a recipe stays valid as long as its hash stays. Raise a version to change
what is computed; then write the recorded hashes anew: python tests/unit/test_recipe_hashes.py
"""

import json
from pathlib import Path

from conftest import CONFIG_FILE, DEMO_IN_BFLOAT16, PROJECT, raw_config

from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import SaeName, Sweep
from saemake.paths.sweeps import members
from saemake.recipes.training import baselines_recipe, sae_recipe

RECORDED = Path(__file__).with_name("recipe_hashes.json")
MODELS = ("demo", "pythia-160m-deduped", "gemma-2-2b")


def _members(config: Config, sweep: Sweep) -> list[SaeName]:
    try:
        return members(config, sweep)
    except SaemakeError:  # a width that its sparsities do not fit
        return []


def hashes() -> dict[str, str]:
    """Short hashes by name: of every sweep of every width, at the layers of each model's suite."""
    config = read(raw_config(DEMO_IN_BFLOAT16), PROJECT, [CONFIG_FILE])
    found = {}
    for model in MODELS:
        for layer in config.models[model].suite.layers:
            recipe = baselines_recipe(config, model, Hookpoint(layer))
            found[f"{model}/L{layer}/baselines"] = recipe.hash[:16]
            for architecture in config.architectures:
                for width in config.widths:
                    for sae in _members(
                        config, Sweep(model, Hookpoint(layer), architecture, width)
                    ):
                        found[str(sae)] = sae_recipe(config, sae).hash[:16]
    return found


def test_recipe_hashes_are_what_they_were() -> None:
    assert hashes() == json.loads(RECORDED.read_text())


def test_a_name_outside_a_sweep_has_the_recipe_that_it_would_have_in_one() -> None:
    sae = SaeName(Sweep("demo", Hookpoint(3), "top_k", "1k"), 24)
    listed = {"architectures": {"top_k": {"sweep": [2, 24]}}}
    without = read(raw_config(), PROJECT, [CONFIG_FILE])
    with_it = read(raw_config({"models": {"demo": listed}}), PROJECT, [CONFIG_FILE])
    assert sae_recipe(without, sae) == sae_recipe(with_it, sae)


def test_a_seed_changes_the_seed_of_the_recipe_alone() -> None:
    config = read(raw_config(), PROJECT, [CONFIG_FILE])
    sweep = Sweep("demo", Hookpoint(3), "top_k", "1k")
    own, third = (sae_recipe(config, SaeName(sweep, 8, seed)) for seed in (None, 3))
    assert third.training.seed == 3
    training = third.training.model_copy(update={"seed": own.training.seed})
    assert third.model_copy(update={"training": training}) == own


if __name__ == "__main__":
    lines = ",\n".join(f' "{name}": "{hash_}"' for name, hash_ in sorted(hashes().items()))
    RECORDED.write_text(f"{{\n{lines}\n}}\n")
