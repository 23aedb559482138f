"""Fit the principal components of the activations at a site into the store and link them."""

from pathlib import Path

from saemake.config.config import Config
from saemake.evaluation.baselines import FILE, RECIPE
from saemake.inputs import weights
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import stores
from saemake.recipes.training import baselines_recipe
from saemake.text.shards import Tokens
from saemake.training.baselines import fit


def fit_baselines(
    config: Config, model_name: str, hookpoint: Hookpoint, model: Path, tokens: Path, output: Path
) -> None:
    """Fit them where the store lacks them. `model` is the LM's model.json, `tokens` the manifest of
    the training text. Raises SaemakeError where the tokens are of another recipe."""
    recipe = baselines_recipe(config, model_name, hookpoint)
    store = stores.store(config, "baselines")
    with store.lock([recipe.hash]):
        store.bring({recipe.hash: recipe.hash})
        if not store.has(recipe.hash):
            lm_weights, _ = weights.read(config, model)
            text = Tokens(tokens)
            text.check(recipe.tokens.hash)
            fitted = fit(lm_weights, text, recipe)
            store.put(recipe.hash, {FILE: fitted, RECIPE: recipe.model_dump_json().encode()})
    store.link(recipe.hash, {FILE: output})
