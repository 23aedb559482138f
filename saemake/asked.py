"""What the config asks of a file: the recipes behind it, by the name of what each is of.

Records keep this of the time when a file was made; `why` and a plan compare it with today's.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from saemake import names, recipes
from saemake.catalogue import entries, targets
from saemake.config import Config
from saemake.errors import SaemakeError
from saemake.made import By
from saemake.names import BASELINES, EVALUATIONS, RESULTS, SAE_FILES, SaeName, Sweep
from saemake.publishing import names as publishing
from saemake.publishing import rebuilding
from saemake.recipes import Recipe

# In an evaluation's recipe, the hash of what it judges, whose own recipe says how that differs.
SUBJECT = "subject"
# Model, layer, architecture, width and sparsity.
SAE_PARTS = 5


def recipes_of(config: Config, path: str) -> dict[str, By]:
    """The recipes of a file; none where all that it depends on is its inputs, or where it is no
    file of this config."""
    parts = PurePosixPath(path).parts
    try:
        match parts:
            case (str(top), *below) if top == RESULTS:
                found = dict(_under_results(config, below))
            case (entries.PUBLISHED, *below):
                found = dict(_published(config, below))
            case (entries.HUB, *below):
                found = _laid_out(config, below)
            case (publishing.SAELENS, *_):
                found = {"export": {"version": publishing.SAELENS_VERSION}}
            case (publishing.PUBLISHED_TO, _, _, model, publishing.CARD | publishing.CONFIG):
                rebuilt = rebuilding.config_yaml(config, model)
                found = {"suite": {"config": rebuilt, "license": config.publishing.license}}
            case _:
                found = {}
    except (SaemakeError, KeyError, ValueError):
        return {}
    return {name: _by(one) for name, one in found.items()}


def _by(one: Recipe | dict[str, Any]) -> By:
    if isinstance(one, Recipe):
        return By(hash=one.hash, recipe=one.model_dump(mode="json"))
    return By(hash=recipes.digest(one), recipe=one)


def _under_results(config: Config, parts: list[str]) -> Iterator[tuple[str, Recipe | Any]]:
    match parts:
        case [model, "model.json"]:
            yield f"{model}/model.json", recipes.model_recipe(config, model)
        case [model, "tokens", use, "manifest.json"]:
            yield f"{model}/tokens/{use}", recipes.tokens_recipe(config, model, use)
        case [model, layer, folder, file] if folder == BASELINES:
            yield from _baselines(config, model, int(layer[1:]), PurePosixPath(file).stem)
        case [model, layer, architecture, width, sparsity, *file] if file:
            sweep = Sweep(model, int(layer[1:]), architecture, width)
            saes = {sae.sparsity_name: sae for sae in names.members(config, sweep)}
            yield from _sae(config, saes[sparsity], "/".join(file))


def _baselines(
    config: Config, model: str, layer: int, stem: str
) -> Iterator[tuple[str, Recipe | Any]]:
    folder = f"{model}/L{layer}/{BASELINES}"
    if stem == "pca":
        yield f"{folder}/{stem}.safetensors", recipes.baselines_recipe(config, model, layer)
    elif stem in EVALUATIONS:
        for name in recipes.baseline_names(config, model):
            recipe = recipes.baseline_evaluation_recipe(config, model, layer, name, stem)
            yield f"{folder}/{name}", recipe


def _sae(config: Config, sae: SaeName, file: str) -> Iterator[tuple[str, Recipe | Any]]:
    evaluation = evaluation_in(file)
    if file in SAE_FILES or file.endswith(".pt"):
        yield str(sae), recipes.sae_recipe(config, sae)
    elif evaluation is None:
        return
    elif file.startswith("checkpoints/"):
        for step in config.checkpoint_steps(sae.sweep.model, sae.sweep.architecture):
            recipe = recipes.checkpoint_evaluation_recipe(config, sae, step, evaluation)
            yield f"{sae}/checkpoints/ae_{step}", recipe
    else:
        yield str(sae), recipes.sae_evaluation_recipe(config, sae, evaluation)


def evaluation_in(file: str) -> str | None:
    """The evaluation that a file holds the figures or the latents of."""
    stem = PurePosixPath(file).stem.removesuffix("_latents")
    return stem if stem in EVALUATIONS else None


def _published(config: Config, parts: list[str]) -> Iterator[tuple[str, Recipe | Any]]:
    match parts:
        case [targets.REPOSITORIES, *repository]:
            name = "/".join(repository).removesuffix(".json")
            yield name, {"revision": config.published.revisions.get(name, "main")}
        case [*sae_name, file] if len(sae_name) == SAE_PARTS:
            catalogue = entries.load(config)
            entry = catalogue.named("/".join(sae_name))
            sae = catalogue.name(entry)
            if evaluation := evaluation_in(file):
                recipe = recipes.published_evaluation_recipe(
                    config, sae, entry.hub_folder, evaluation
                )
                yield f"{entries.PUBLISHED}/{sae}", recipe
            elif file in targets.WEIGHTS:
                yield str(sae), {"place": entry.hub_folder}
            elif file in targets.COMPARISONS:
                tolerances = config.published.tolerances.model_dump(mode="json")
                yield str(sae), {"catalogue": dataclasses.asdict(entry), "tolerances": tolerances}


def _laid_out(config: Config, parts: list[str]) -> dict[str, Any]:
    folder = Path(entries.HUB, *parts).parent
    if folder.name == "checkpoints":
        folder = folder.parent
    catalogue = entries.load(config)
    return {"laid out": {"name": str(catalogue.wanted(config, catalogue.at(str(folder))))}}
