"""The weights of a GGUF file as safetensors, made once and kept in the store: de-quantising takes
longer than all else of a small job."""

import dataclasses
from importlib.metadata import version

from saemake.base.digest import digest
from saemake.base.saying import say
from saemake.base.store import Store
from saemake.config.config import Config
from saemake.llm.weights import Weights
from saemake.recipes.inputs import model_recipe

# Packages that decide which numbers come out.
DECIDING = ("gguf", "transformers")


def converted_key(config: Config, name: str) -> str:
    """What names a GGUF model's converted weights in the store: its content, its dtype, and the
    versions of what converts."""
    recipe = model_recipe(config, name)
    return digest([recipe.content, recipe.dtype, {each: version(each) for each in DECIDING}])


def convert(config: Config, weights: Weights, store: Store) -> Weights:
    """The same weights, converted. They are made where the store lacks them or has them damaged.
    Raises SaemakeError if the file cannot be read or the disk is full."""
    key = converted_key(config, weights.name)
    with store.shared(key):
        kept = store.holds(key)
    if not kept:
        with store.lock([key]):
            if not store.has(key):
                say(f"model '{weights.name}': converting {weights.gguf_file} to safetensors, once")
                from saemake.llm import loading  # imports torch, which a kept one does without

                with store.entry(key) as folder:
                    loading.convert(weights, folder)
                    for path in folder.iterdir():
                        path.chmod(0o644)  # safetensors lets nobody else read what it writes
    return dataclasses.replace(weights, converted=store.folder / key)
