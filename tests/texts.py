"""A text tokenised for a test or a benchmark, as the rule's script does it."""

from pathlib import Path

from saemake.base.store import Store
from saemake.config.config import Config
from saemake.inputs import tokens
from saemake.llm.model import load_tokenizer
from saemake.llm.weights import Weights
from saemake.recipes.inputs import tokens_recipe
from saemake.text.shards import MANIFEST, Tokens


def tokenised(config: Config, weights: Weights, use: str, folder: Path) -> Tokens:
    """The text of the model `weights.name` for a use, in the store under a folder; made where that
    lacks it."""
    recipe, store = tokens_recipe(config, weights.name, use), Store(folder, "tokens")
    if not store.has(recipe.hash):
        tokens.make(config, weights.name, use, recipe, load_tokenizer(weights), store)
    return Tokens(store.folder / recipe.hash / MANIFEST)
