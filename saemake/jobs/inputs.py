"""Bring what jobs read: the model's files, and the text as tokens."""

from pathlib import Path

from saemake.base.files import write_json
from saemake.base.store import Store
from saemake.config.config import Config
from saemake.inputs import tokens, weights
from saemake.inputs.converted import convert
from saemake.llm.loading import load_tokenizer
from saemake.paths.names import CONVERTED, STORE
from saemake.recipes.inputs import tokens_recipe, trained_sources
from saemake.text.shards import Tokens


def fetch_model(config: Config, name: str, output: str) -> None:
    """Fetch a model's files, check them against the config, and describe them in model.json. The
    weights of a GGUF file are converted for all later jobs."""
    described = weights.fetch(config, name, Store(STORE, "revisions"))
    if config.models[name].gguf_file is not None:
        found = weights.locate(config, name, described["revision"])
        convert(config, found, Store(STORE, CONVERTED))
    write_json(output, described)


def tokenise(
    config: Config, name: str, use: str, model: Path, after: Path | None, output: Path
) -> None:
    """Tokenise the text of a use into the store, and link its shards beside the manifest `output`.

    `after` is the manifest of the training's tokens, where this text goes on after them.
    """
    recipe = tokens_recipe(config, name, use)
    store = Store(STORE, "tokens")
    with store.lock([recipe.hash]):
        if not store.has(recipe.hash):
            lm_weights, _ = weights.read(config, model)
            tokenizer = load_tokenizer(lm_weights)
            skips: list[int] = []
            if recipe.after is not None:
                assert after is not None
                trained_on = Tokens(after)
                trained_on.check(recipe.after)
                skips = rows_trained_on(config, name, use, trained_on)
            tokens.make(config, name, use, recipe, tokenizer, store, skips)
    store.link(recipe.hash, {file: output.parent / file for file in store.files(recipe.hash)})


def rows_trained_on(config: Config, name: str, use: str, trained_on: Tokens) -> list[int]:
    """For each text that an evaluation reads, how many of its rows the training read, by the
    training's tokens: 0 of a text that it did not read."""
    rows = tokens.rows_read(trained_on.manifest)
    return [
        max((rows[place] for place in places), default=0)
        for places in trained_sources(config, name, use)
    ]
