"""Recipes of evaluations, and of what SAE Bench sets up for them."""

import functools
from pathlib import Path
from typing import Any

from saemake import architectures
from saemake import evaluation as evaluations
from saemake.architectures import Architecture
from saemake.base.digest import digest
from saemake.config.config import Config
from saemake.evaluation.by_sae_bench import SaeBenchSettings
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import catalogue
from saemake.paths.judged_by import transformer_lens_name
from saemake.paths.names import (
    Baselines,
    Checkpoints,
    PublishedSweep,
    SaeName,
    SetupName,
    Subjects,
    Sweep,
)
from saemake.paths.sweeps import members
from saemake.recipes.inputs import dataset_recipe, model_recipe, tokens_recipe
from saemake.recipes.kinds import EvaluationRecipe, JudgedBy, SaeBenchRecipe, SetupRecipe
from saemake.recipes.training import (
    baseline_key,
    baseline_names,
    checkpoint_key,
    published_key,
    sae_recipe,
)

# What SAE Bench's evaluations run in, and the packages among these whose versions may change a
# figure.
SAE_BENCH_PINS = "envs/saebench.txt"
SAE_BENCH_PACKAGES = (
    *("sae-bench", "sae-probes", "sae-lens", "transformer-lens", "transformers", "tokenizers"),
    *("torch", "numpy", "pandas", "scipy", "scikit-learn", "datasets"),
)


def evaluation_recipe(
    config: Config,
    model: str,
    evaluation: str,
    subject: str,
    architecture: str | None = None,
    sparsity: float | None = None,
) -> EvaluationRecipe:
    """Of a subject by its recipe's hash; of an SAE, with its architecture and sparsity."""
    described, settings = evaluations.on_text(evaluation), config.evaluation_of(model, evaluation)
    kind = architectures.get(architecture) if architecture else None
    return EvaluationRecipe(
        version=described.version,
        evaluation=evaluation,
        settings=settings.model_dump(mode="json", exclude=settings.OUTSIDE_RECIPE),
        subject=subject,
        tokens=tokens_recipe(config, model, evaluation),
        lm_devices=config.models[model].lm_devices,
        batch_contexts=described.batch_contexts(settings, config.models[model].llm_batch_contexts),
        cpu_threads=config.training_of(model).cpu_threads,
        inferences=_inferences(config, model, kind, sparsity),
        target_l0=kind.target_l0(sparsity) if kind and sparsity is not None else None,
    )


def _inferences(
    config: Config, model: str, kind: type[Architecture] | None, sparsity: float | None
) -> list[str | None]:
    if kind is None:
        return [None]
    if sparsity is None:
        return list(kind.inferences) or [None]
    settings = config.settings_of(model, kind.name)
    return list(kind.judged_inferences(settings, sparsity)) or [None]


def setup_recipe(config: Config, setup: SetupName) -> SetupRecipe:
    """What an evaluation of SAE Bench sets up for a layer."""
    described = evaluations.by_sae_bench(setup.evaluation)
    settings = config.sae_bench_of(setup.model, setup.evaluation)
    lm = config.sae_bench_lm(setup.model, setup.evaluation)
    data = config.sae_bench_datasets(setup.model, setup.evaluation)
    return SetupRecipe(
        version=described.version,
        evaluation=setup.evaluation,
        settings={
            key: value
            for key, value in _seeded(settings, setup.seed).items()
            if key not in described.of_saes_only
        },
        model=model_recipe(config, lm),
        lm_name=transformer_lens_name(config, lm),
        layer=setup.layer,
        datasets={name: dataset_recipe(config, name) for name in data},
        software=_sae_bench_software(config.root / SAE_BENCH_PINS),
        cpu_threads=config.training_of(setup.model).cpu_threads,
    )


def _seeded(settings: SaeBenchSettings, seed: int) -> dict[str, Any]:
    return {**settings.recorded(), "random_seed": seed}


@functools.cache
def _sae_bench_software(pins: Path) -> dict[str, str]:
    pinned = dict(line.split("==") for line in pins.read_text().split() if "==" in line)
    return {name: pinned[name] for name in SAE_BENCH_PACKAGES}


def sae_bench_recipe(
    config: Config,
    of: SetupName,
    subject: str,
    architecture: str | None = None,
    sparsity: float | None = None,
) -> SaeBenchRecipe:
    """Of a subject by its recipe's hash, judged after a setup."""
    kind = architectures.get(architecture) if architecture else None
    setup = setup_recipe(config, of)
    return SaeBenchRecipe(
        version=setup.version,
        evaluation=of.evaluation,
        settings=_seeded(config.sae_bench_of(of.model, of.evaluation), of.seed),
        subject=subject,
        setup=setup.hash,
        lm_name=setup.lm_name,
        software=setup.software,
        inferences=_inferences(config, of.model, kind, sparsity)[:1],
    )


def setups(config: Config, model: str, layer: int, evaluation: str) -> list[SetupName]:
    """What an evaluation of SAE Bench sets up for a layer, for each of its seeds."""
    seeds = config.sae_bench_of(model, evaluation).seeds
    return [SetupName(model, layer, evaluation, seed) for seed in seeds]


def judging_recipes(
    config: Config,
    model: str,
    hookpoint: Hookpoint,
    evaluation: str,
    subject: str,
    architecture: str | None = None,
    sparsity: float | None = None,
) -> list[JudgedBy]:
    """By which a subject is judged by any evaluation: one recipe, or by SAE Bench one a seed."""
    if evaluation in config.text_evaluations:
        return [evaluation_recipe(config, model, evaluation, subject, architecture, sparsity)]
    return [
        sae_bench_recipe(config, setup, subject, architecture, sparsity)
        for setup in setups(config, model, hookpoint.layer, evaluation)
    ]


def sae_evaluation_recipe(config: Config, name: SaeName, evaluation: str) -> EvaluationRecipe:
    """Of an SAE, judged by an evaluation that reads a text."""
    sweep, subject = name.sweep, sae_recipe(config, name).hash
    kind, sparsity = sweep.architecture, name.sparsity
    return evaluation_recipe(config, sweep.model, evaluation, subject, kind, sparsity)


def sae_evaluation_recipes(config: Config, name: SaeName, evaluation: str) -> list[JudgedBy]:
    """Of an SAE."""
    return _judging_an_sae(config, name, evaluation, sae_recipe(config, name).hash)


def published_evaluation_recipes(
    config: Config, name: SaeName, place: str, evaluation: str
) -> list[JudgedBy]:
    """Of the published SAE of that name, which lies in a place on the Hub."""
    return _judging_an_sae(config, name, evaluation, published_key(place))


def _judging_an_sae(config: Config, name: SaeName, evaluation: str, subject: str) -> list[JudgedBy]:
    kind, sparsity = name.sweep.architecture, name.sparsity
    return judging_recipes(config, name.model, name.hookpoint, evaluation, subject, kind, sparsity)


def checkpoint_evaluation_recipes(
    config: Config, name: SaeName, step: int, evaluation: str
) -> list[JudgedBy]:
    """Of the SAE before that step; its L0 is no target yet."""
    sweep, subject = name.sweep, checkpoint_key(sae_recipe(config, name), step)
    return judging_recipes(
        config, sweep.model, sweep.hookpoint, evaluation, subject, sweep.architecture
    )


def judged_baselines(config: Config, model: str, evaluation: str) -> list[str]:
    """The baselines that an evaluation judges: SAE Bench, `pca` alone."""
    return baseline_names(config, model) if evaluation in config.text_evaluations else ["pca"]


def baseline_evaluation_recipes(
    config: Config, model: str, hookpoint: Hookpoint, baseline: str, evaluation: str
) -> list[JudgedBy]:
    """Of a baseline by its name (see baseline_names)."""
    subject = baseline_key(config, model, hookpoint, baseline)
    return judging_recipes(config, model, hookpoint, evaluation, subject)


def evaluation_key(recipe_hash: str, judged_sha256: str) -> str:
    """What names an evaluation in the store: its recipe with the judged bytes."""
    return digest([recipe_hash, judged_sha256])


def evaluation_recipes(
    config: Config, subjects: Subjects, evaluation: str
) -> dict[SaeName | int | str, list[JudgedBy]]:
    """The recipes of one evaluation of all that one job judges, in the job's order: by the SAE, by
    a checkpoint's step, or by a baseline's name. Each is judged by one, or by SAE Bench by one a
    seed."""
    match subjects:
        case Sweep() | SaeName():
            saes = members(config, subjects)
            return {sae: sae_evaluation_recipes(config, sae, evaluation) for sae in saes}
        case Checkpoints(sae):
            steps = config.checkpoint_steps(sae.sweep.model, sae.sweep.architecture)
            return {
                step: checkpoint_evaluation_recipes(config, sae, step, evaluation) for step in steps
            }
        case Baselines(model, hookpoint):
            return {
                name: baseline_evaluation_recipes(config, model, hookpoint, name, evaluation)
                for name in judged_baselines(config, model, evaluation)
            }
        case PublishedSweep(sweep):
            entries = catalogue.load(config).of_sweep(sweep)
            return {
                sae: published_evaluation_recipes(config, sae, entry.hub_folder, evaluation)
                for sae, entry in entries.items()
            }


def evaluation_hashes(config: Config, subjects: Subjects, evaluation: str) -> list[str]:
    """Short hashes of these recipes: what Snakemake compares for staleness."""
    return [
        recipe.hash[:16]
        for by_seed in evaluation_recipes(config, subjects, evaluation).values()
        for recipe in by_seed
    ]
