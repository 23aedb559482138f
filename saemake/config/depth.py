"""How many layers (blocks) a model has: as the config says, or where it does not, as the model's
own files do. Uses no network."""

import json
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.config.sections import Model
from saemake.llm.depth import blocks_in

# What the job of a model writes of it, once it is fetched; its path in the grammar of paths.
DESCRIPTION = "results/{model}/model.json"


def layers_of(config: Config, name: str) -> int:
    """The layers of a model. Raises SaemakeError where they are not known without a network, or the
    files of a folder do not say them."""
    layers = layers_if_known(config, name)
    if layers is not None:
        return layers
    write = f"write models.{name}.layers, its number of blocks"
    if config.models[name].hub is None:
        raise SaemakeError(f"model '{name}': its files do not say how many layers it has; {write}")
    raise SaemakeError(
        f"model '{name}' is not on this machine, so its layers are not known: fetch it first"
        f" (`saemake build {DESCRIPTION.format(model=name)}`), or {write}"
    )


def layers_if_known(config: Config, name: str) -> int | None:
    """The layers of a model; None where they are not known without a network. Raises SaemakeError
    where a file of a local model cannot be read."""
    model = config.models[name]
    if model.layers is not None:
        return model.layers
    if model.hub is None:
        return blocks_in(config.path_of(model), model.gguf_file)
    # The description is of the commit that the project keeps to. The Hub's cache may lack it, on
    # another machine, or have a later one.
    return _described(name, model.hub) or _cached(model)


def _described(name: str, hub: str) -> int | None:
    try:
        content = json.loads(Path(DESCRIPTION.format(model=name)).read_text())
        return int(content["layers"]) if content["hub"] == hub else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _cached(model: Model) -> int | None:
    assert model.hub is not None
    path = try_to_load_from_cache(model.hub, "config.json", revision=model.revision)
    return blocks_in(Path(path).parent, None) if isinstance(path, str) else None
