"""The recipes by which the config would make a file, each under a name such as an SAE's.

A record keeps these recipes as they were when the file was made. `why` and a plan compare them with
those of the current config.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from saemake.base.digest import digest
from saemake.base.errors import SaemakeError
from saemake.config import rebuilding
from saemake.config.config import Config
from saemake.paths import catalogue, files
from saemake.paths.artifacts import (
    Artifact,
    BaselinesFile,
    CheckpointsFile,
    DatasetFile,
    HubFile,
    ModelFile,
    PushFile,
    RepositoryFile,
    SaeFile,
    SetupFile,
    TokensFile,
    TracerFile,
)
from saemake.paths.files import evaluation_in
from saemake.paths.grammar import parse, trained_file
from saemake.paths.names import BASELINES, PCA, PUBLISHED, RESULTS, SAELENS, Baselines, SaeName
from saemake.recipes.features import features_recipe
from saemake.recipes.inputs import dataset_recipe, model_recipe, tokens_recipe
from saemake.recipes.judging import (
    baseline_evaluation_recipes,
    checkpoint_evaluation_recipes,
    judged_baselines,
    published_evaluation_recipes,
    sae_evaluation_recipes,
    setup_recipe,
)
from saemake.recipes.kinds import JudgedBy, Recipe
from saemake.recipes.training import baselines_recipe, sae_recipe
from saemake.records.made import By

# The key in an evaluation's recipe whose value is the hash of the judged SAE. How that SAE differs
# is shown by the SAE's own recipe.
SUBJECT = "subject"
Named = Iterator[tuple[str, Recipe | dict[str, Any]]]


def recipes_of(config: Config, path: str) -> dict[str, By]:
    """The recipes of a file, by name. Empty if the file depends on its inputs alone, or is not of
    this config."""
    try:
        return {name: _by(recipe) for name, recipe in _recipes(config, parse(config, path))}
    except (SaemakeError, KeyError, ValueError):
        return {}


def _by(recipe: Recipe | dict[str, Any]) -> By:
    if isinstance(recipe, Recipe):
        return By(hash=recipe.hash, recipe=recipe.model_dump(mode="json"))
    return By(hash=digest(recipe), recipe=recipe)


def _recipes(config: Config, artifact: Artifact) -> Named:
    """The recipes of an artifact, each with its name."""
    match artifact:
        case ModelFile(model):
            yield f"{model}/model.json", model_recipe(config, model)
        case TokensFile(model, use):
            yield f"{model}/tokens/{use}", tokens_recipe(config, model, use)
        case BaselinesFile(baselines, file):
            yield from _baselines(config, baselines, file)
        case SetupFile(setup):
            yield str(setup), setup_recipe(config, setup)
        case DatasetFile(dataset):
            yield dataset, dataset_recipe(config, dataset)
        case SaeFile(top, sae, file) if top == RESULTS:
            yield from _sae(config, sae, file)
        case CheckpointsFile(checkpoints, file):
            yield from _checkpoints(config, checkpoints.sae, file)
        case SaeFile(top, sae, file) if top == PUBLISHED:
            yield from _published(config, sae, file)
        case RepositoryFile(repository):
            yield repository, {"revision": config.published.revisions.get(repository, "main")}
        case HubFile(_, sae):
            yield "laid out", {"name": str(sae)}
        case SaeFile(top) if top == SAELENS:
            yield "export", {"version": files.SAELENS_VERSION}
        case TracerFile():
            yield "export", {"version": files.TRACER_VERSION}
        case PushFile(_, model, files.CARD | files.REBUILDING):
            rebuilt = rebuilding.config_yaml(config, model)
            yield "suite", {"config": rebuilt, "license": config.publishing.license}


def _baselines(config: Config, baselines: Baselines, file: str) -> Named:
    model, hookpoint = baselines.model, baselines.hookpoint
    folder = f"{model}/{hookpoint}/{BASELINES}"
    if file == PCA:
        yield f"{folder}/{file}", baselines_recipe(config, model, hookpoint)
    elif evaluation := evaluation_in(config, file):
        for name in judged_baselines(config, model, evaluation):
            by_seed = baseline_evaluation_recipes(config, model, hookpoint, name, evaluation)
            yield from _by_seed(f"{folder}/{name}", by_seed)


def _by_seed(name: str, recipes: Sequence[JudgedBy]) -> Named:
    """The recipes of one evaluation of one thing, where there are several each with its seed."""
    for number, recipe in enumerate(recipes):
        yield name if number == 0 else f"{name} ({recipe.settings['random_seed']})", recipe


def _sae(config: Config, sae: SaeName, file: str) -> Named:
    if trained_file(file):
        yield str(sae), sae_recipe(config, sae)
    elif evaluation := evaluation_in(config, file):
        yield from _by_seed(str(sae), sae_evaluation_recipes(config, sae, evaluation))
    elif file == files.FEATURES:
        yield str(sae), features_recipe(config, sae)


def _checkpoints(config: Config, sae: SaeName, file: str) -> Named:
    if trained_file(file):
        yield str(sae), sae_recipe(config, sae)
    elif evaluation := evaluation_in(config, file):
        for step in config.checkpoint_steps(sae.model, sae.sweep.architecture):
            by_seed = checkpoint_evaluation_recipes(config, sae, step, evaluation)
            yield from _by_seed(f"{sae}/checkpoints/ae_{step}", by_seed)


def _published(config: Config, sae: SaeName, file: str) -> Named:
    entry = catalogue.load(config).named(str(sae))
    if evaluation := evaluation_in(config, file):
        by_seed = published_evaluation_recipes(config, sae, entry.hub_folder, evaluation)
        yield from _by_seed(f"{PUBLISHED}/{sae}", by_seed)
    elif file in files.PUBLISHED_WEIGHTS:
        yield str(sae), {"place": entry.hub_folder}
    elif file in files.COMPARISONS:
        tolerances = config.published.tolerances.model_dump(mode="json")
        yield str(sae), {"catalogue": dataclasses.asdict(entry), "tolerances": tolerances}
