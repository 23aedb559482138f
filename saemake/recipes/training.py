"""Recipes of SAEs, their checkpoints and baselines."""

from saemake import architectures
from saemake.activations.drop_settings import Drop, TrainingDrop
from saemake.architectures.training_settings import Training
from saemake.base.digest import digest
from saemake.config.config import Config
from saemake.llm.hookpoint import RESID_POST, Hookpoint
from saemake.paths import catalogue
from saemake.paths.names import PUBLISHED, SaeName, Trained
from saemake.paths.starts import start_of
from saemake.paths.sweeps import members
from saemake.recipes.inputs import tokens_recipe, training_tokens
from saemake.recipes.kinds import BaselinesRecipe, SaeRecipe

# Raised by hand when the maths or the order behind them changes. Architectures carry their own.
ACTIVATIONS_VERSION, BASELINES_VERSION = 3, 3


def sae_recipe(config: Config, name: SaeName) -> SaeRecipe:
    """An SAE by its name, whether a sweep lists it or not."""
    sweep = name.sweep
    model = config.models[sweep.model]
    settings = config.settings_of(sweep.model, sweep.architecture)
    return SaeRecipe(
        tokens=tokens_recipe(config, sweep.model, "train"),
        activations_version=ACTIVATIONS_VERSION,
        layer=sweep.hookpoint.layer,
        read=sweep.hookpoint.read,
        write=sweep.hookpoint.write,
        lm_devices=model.lm_devices,
        llm_batch_contexts=model.llm_batch_contexts,
        buffer_tokens=model.buffer_tokens,
        architecture=sweep.architecture,
        architecture_version=architectures.get(sweep.architecture).version,
        width=config.latents(sweep.width),
        sparsity=name.sparsity,
        settings=settings.model_dump(mode="json", exclude=settings.OUTSIDE_RECIPE),
        training=_trained_with(config, sweep.model, name.seed),
        steps=config.steps_of(sweep.model),
        start_from=start_key(config, name),
    )


def start_key(config: Config, name: SaeName) -> str | None:
    """What names the SAE that an SAE's training begins from; None where its weights are drawn.
    Raises ConfigError where the config names none that it can begin from."""
    start = start_of(config, name)
    if start is None:
        return None
    if start.top == PUBLISHED:
        entry = catalogue.load(config).named(str(start.sae))
        revision = config.published.revisions.get(entry.repository, "main")
        return digest([published_key(entry.hub_folder), revision])
    return sae_recipe(config, start.sae).hash


def published_key(place: str) -> str:
    """What names a published SAE by its place on the Hub."""
    return digest(["published", place])


def _trained_with(config: Config, model: str, seed: int | None) -> Training:
    """With the seed of the SAE's name. Without the path that training starts from, in whose place
    the recipe has a hash, and without the reserve where no norm is left out: it changes no byte
    then."""
    training = config.training_of(model).model_copy(update={"start_from": None})
    if seed is not None:
        training = training.model_copy(update={"seed": seed})
    if training.drop.norm_over_median is not None:
        return training
    drop = TrainingDrop(**training.drop.model_dump(exclude={"reserve"}))
    return training.model_copy(update={"drop": drop})


def baselines_recipe(config: Config, model: str, hookpoint: Hookpoint) -> BaselinesRecipe:
    """The principal components at a single site."""
    return BaselinesRecipe(
        version=BASELINES_VERSION,
        tokens=training_tokens(config, model),
        layer=hookpoint.layer,
        read=hookpoint.read,
        write=hookpoint.write,
        lm_devices=config.models[model].lm_devices,
        llm_batch_contexts=config.models[model].llm_batch_contexts,
        pca_tokens=config.baselines_of(model).pca_tokens,
        cpu_threads=config.training_of(model).cpu_threads,
        # Of the same positions as the SAEs.
        drop=Drop(**config.training_of(model).drop.model_dump(exclude={"reserve"})),
    )


def baseline_names(config: Config, model: str) -> list[str]:
    """`identity`, `pca` (all components) and `pca/k_20`, ...: the first k, as many as the sweep of
    top_k keeps."""
    sweep = config.settings_of(model, "top_k").sweep if "top_k" in config.architectures else []
    return ["identity", "pca", *(f"pca/k_{k}" for k in sweep)]


def baseline_key(config: Config, model: str, hookpoint: Hookpoint, baseline: str) -> str:
    """What names a baseline of a site."""
    return digest([baselines_recipe(config, model, hookpoint).hash, baseline])


def checkpoint_key(recipe: SaeRecipe, step: int) -> str:
    """What names a checkpoint in the store."""
    return digest([recipe.hash, step])


def lm_run_key(recipe: SaeRecipe) -> str:
    """SAEs with the same one can train on one run of the LM: the text and its batches, the LM's
    GPUs, the steps and their size, how norm factors are found, and the threads of the process are
    the same."""
    training = recipe.training
    # An end-to-end loss needs the LM's own run on the same contexts.
    of_loss = (
        []
        if training.loss == "mse"
        else [training.loss, str(recipe.hookpoint), training.drop.model_dump()]
    )
    return digest(
        [
            *of_loss,
            recipe.tokens.hash,
            recipe.activations_version,
            recipe.lm_devices,
            recipe.llm_batch_contexts,
            recipe.steps,
            training.batch_tokens,
            training.norm_batches,
            training.cpu_threads,
        ]
    )


def stream_key(recipe: SaeRecipe) -> str:
    """SAEs of one pass with the same one train on the same batches of activations: of one
    hookpoint, shuffled by one seed."""
    training = recipe.training.model_dump(mode="json")
    if recipe.training.loss != "mse":  # the text's order, which no seed shuffles
        del training["seed"]
    site = recipe.hookpoint.site
    elsewhere = [] if site == RESID_POST else [site]
    return digest([recipe.layer, recipe.buffer_tokens, training, *elsewhere])


def training_hashes(config: Config, trained: Trained) -> list[str]:
    """Short hashes of the recipes of what one job trains: what Snakemake compares for staleness."""
    return [sae_recipe(config, member).hash[:16] for member in members(config, trained)]
