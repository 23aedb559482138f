"""The recipe of how a sweep's latents recur in other seeds."""

from saemake.config.config import Config
from saemake.paths.files import FIRINGS
from saemake.paths.names import Sweep
from saemake.paths.sweeps import with_seeds
from saemake.recipes.judging import sae_evaluation_recipe
from saemake.recipes.kinds import StabilityRecipe
from saemake.recipes.training import sae_recipe

# Raised by hand when what is computed of a pair changes.
STABILITY_VERSION = 1


def stability_recipe(config: Config, sweep: Sweep) -> StabilityRecipe:
    """Of all pairs of SAEs of a sweep that differ in their seed alone."""
    saes = with_seeds(config, sweep)
    evaluations = [name for name in FIRINGS if name in config.suite_evaluations(sweep.model)]
    return StabilityRecipe(
        version=STABILITY_VERSION,
        saes=[sae_recipe(config, sae).hash for sae in saes],
        judged=[
            sae_evaluation_recipe(config, sae, name).hash for sae in saes for name in evaluations
        ],
    )
