"""Fit the principal components of a layer's activations into the store and link them."""

from pathlib import Path

from saemake import jobs
from saemake.config import read
from saemake.evaluation.baselines import FILE, RECIPE, fit
from saemake.llm import weights
from saemake.recipes import baselines_recipe
from saemake.store import Store
from saemake.text.shards import Tokens

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    wildcards = snakemake.wildcards
    recipe = baselines_recipe(config, wildcards.model, int(wildcards.layer))
    store = Store(Path("results/.store"), "baselines")
    with store.lock([recipe.hash]):
        if not store.has(recipe.hash):
            lm_weights, _ = weights.read(config, Path(snakemake.input.model))
            tokens = Tokens(Path(snakemake.input.tokens))
            tokens.check(recipe.tokens.hash)
            fitted = fit(lm_weights, tokens, recipe)
            store.put(recipe.hash, {FILE: fitted, RECIPE: recipe.model_dump_json().encode()})
    store.link(recipe.hash, {FILE: Path(snakemake.output[0])})
