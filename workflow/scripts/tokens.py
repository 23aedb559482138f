"""Tokenise a split of a model's text into the store and link its shards beside the manifest."""

from pathlib import Path

from saemake import jobs
from saemake.config import read
from saemake.llm import model, weights
from saemake.recipes import tokens_recipe
from saemake.store import Store
from saemake.text import tokens

with jobs.job(snakemake.log[0]):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    name, split = snakemake.wildcards.model, snakemake.wildcards.split
    recipe = tokens_recipe(config, name, split)
    store = Store(Path("results/.store"), "tokens")
    with store.lock([recipe.hash]):
        if not store.has(recipe.hash):
            lm_weights, _ = weights.read(config, Path(snakemake.input.model))
            tokenizer = model.load_tokenizer(lm_weights)
            tokens.make(config, name, split, recipe, tokenizer, store)
    manifest = Path(snakemake.output[0])
    store.link(recipe.hash, {file: manifest.parent / file for file in store.files(recipe.hash)})
