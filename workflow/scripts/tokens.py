"""Tokenise the text of a use into the store and link its shards beside the manifest."""

from pathlib import Path

from saemake import jobs
from saemake.config import read
from saemake.llm import model, weights
from saemake.recipes import tokens_recipe
from saemake.store import Store
from saemake.text import tokens
from saemake.text.shards import Tokens

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    name, use = snakemake.wildcards.model, snakemake.wildcards.use
    recipe = tokens_recipe(config, name, use)
    store = Store(Path("results/.store"), "tokens")
    with store.lock([recipe.hash]):
        if not store.has(recipe.hash):
            lm_weights, _ = weights.read(config, Path(snakemake.input.model))
            tokenizer = model.load_tokenizer(lm_weights)
            skip = 0
            if recipe.after is not None:
                trained_on = Tokens(Path(snakemake.input.after))
                trained_on.check(recipe.after)
                skip = trained_on.manifest["rows_read"]
            tokens.make(config, name, use, recipe, tokenizer, store, skip)
    manifest = Path(snakemake.output[0])
    store.link(recipe.hash, {file: manifest.parent / file for file in store.files(recipe.hash)})
