"""Recipes: everything that the bytes of an artifact are a function of, and nothing else.

A recipe is hashed as JSON with sorted keys. Paths, device, logging and what is made beside an
artifact are not in it.
"""

import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from saemake import architectures
from saemake import evaluation as evaluations
from saemake.activations.drop_settings import Drop, RecordedDrop, TrainingDrop
from saemake.architectures.training_settings import Training
from saemake.base.digest import digest
from saemake.base.sections import Closed
from saemake.base.store import sha256
from saemake.config.config import Config, content_files, matching_files
from saemake.config.sections import Source
from saemake.evaluation.by_sae_bench import SaeBenchSettings
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
    Trained,
)
from saemake.paths.sweeps import members

# Raised by hand when the maths or the order behind them changes. Architectures
# and evaluations carry their own.
TOKENS_VERSION, ACTIVATIONS_VERSION, BASELINES_VERSION = 3, 3, 3
# What SAE Bench's evaluations run in, and the packages among these whose versions may change a
# figure.
SAE_BENCH_PINS = "envs/saebench.txt"
SAE_BENCH_PACKAGES = (
    *("sae-bench", "sae-probes", "sae-lens", "transformer-lens", "transformers", "tokenizers"),
    *("torch", "numpy", "pandas", "scipy", "scikit-learn", "datasets"),
)


class Recipe(Closed):
    """A recipe of any kind; `hash` names it in the store."""

    @property
    def hash(self) -> str:
        """sha256 of the recipe's canonical JSON, in hex."""
        return digest(self.model_dump(mode="json"))


class ModelRecipe(Recipe):
    """Which weights: a folder's content, or a Hub repository and revision; and their dtype."""

    content: str | None
    hub: str | None
    revision: str | None
    gguf_file: str | None
    layers: int
    dtype: str


class TokensRecipe(Recipe):
    """The tokenised text: documents one a context, or packed into contexts of equal length; from
    the text's beginning, or after the documents that the tokens with the hash `after` are of.

    An `amount` of tokens does not count those of the `dropped` kinds, which are left out by whoever
    reads them. That and `prepend_bos` are in the recipe only where they are on.
    """

    version: int
    model: ModelRecipe
    text_content: str | None
    text_hub: str | None
    text_revision: str | None
    subset: str | None
    split: str
    column: str
    shuffle_seed: int | None
    after: str | None
    layout: Literal["documents", "packed"]
    context_tokens: int
    amount: int
    unit: Literal["tokens", "documents"]
    prepend_bos: bool = Field(default=False, exclude_if=lambda on: not on)
    dropped: list[Literal["bos", "special"]] = Field(default=[], exclude_if=lambda kinds: not kinds)


class SaeRecipe(Recipe):
    """One SAE. `ae.pt` is a function of this alone, on one kind of device."""

    tokens: TokensRecipe
    activations_version: int
    layer: int
    llm_batch_contexts: int
    buffer_tokens: int
    architecture: str
    architecture_version: int
    width: int
    sparsity: int | float
    settings: dict[str, Any]
    training: Training
    steps: int


class BaselinesRecipe(Recipe):
    """The principal components of a layer's activations on the beginning of the training text."""

    version: int
    tokens: TokensRecipe
    layer: int
    llm_batch_contexts: int
    pca_tokens: int
    cpu_threads: int
    drop: RecordedDrop = Drop()


class EvaluationRecipe(Recipe):
    """One evaluation of one thing: `subject` is the hash of the recipe of an SAE, a checkpoint or
    a baseline. `settings` are what else its figures depend on."""

    version: int
    evaluation: str
    settings: dict[str, Any]
    subject: str
    tokens: TokensRecipe
    batch_contexts: int
    cpu_threads: int
    inferences: list[str | None]
    target_l0: float | None


class DatasetRecipe(Recipe):
    """Data that SAE Bench reads: a folder's content, or files or rows of a Hub repository."""

    content: str | None
    hub: str | None
    revision: str | None
    files: list[str]
    split: str | None
    rows: int | None


class SetupRecipe(Recipe):
    """What an evaluation of SAE Bench sets up from the LM and the data alone, from the seed in its
    settings. `lm_name` is TransformerLens's name of the LM."""

    version: int
    evaluation: str
    settings: dict[str, Any]
    model: ModelRecipe
    lm_name: str
    layer: int
    datasets: dict[str, DatasetRecipe]
    software: dict[str, str]
    cpu_threads: int


class SaeBenchRecipe(Recipe):
    """One evaluation by SAE Bench of one thing, from the seed in its settings. `subject` is as in
    EvaluationRecipe, `setup` the hash of the recipe of its setup. Latents are chosen as SAE Bench's
    loader does it: `inferences` has one entry."""

    version: int
    evaluation: str
    settings: dict[str, Any]
    subject: str
    setup: str
    lm_name: str
    software: dict[str, str]
    inferences: list[str | None]


JudgedBy = EvaluationRecipe | SaeBenchRecipe


def model_recipe(config: Config, name: str) -> ModelRecipe:
    model = config.models[name]
    return ModelRecipe(
        content=_content(config, model, model.gguf_file),
        hub=model.hub,
        revision=model.revision if model.hub else None,
        gguf_file=model.gguf_file,
        layers=model.layers,
        dtype=model.dtype,
    )


def tokens_recipe(config: Config, model: str, use: str) -> TokensRecipe:
    """The tokens that a model's SAEs are trained on ('train'), or judged on by an evaluation."""
    return _training_tokens(config, model) if use == "train" else _judged_on(config, model, use)


def _training_tokens(config: Config, model: str) -> TokensRecipe:
    training = config.training_of(model)
    batches = training.norm_batches + config.steps_of(model)
    needed, drop = batches * training.batch_tokens, training.drop
    reserve = 0 if drop.norm_over_median is None else math.ceil(needed * drop.reserve)
    text = config.models[model].text
    return TokensRecipe(
        **_source(config, model, text),
        split=config.texts[text].train_split,
        shuffle_seed=None,
        after=None,
        layout="documents",
        context_tokens=config.models[model].context_tokens,
        amount=needed + reserve,
        unit="tokens",
        prepend_bos=config.models[model].prepend_bos,
        dropped=drop.kinds,
    )


def _judged_on(config: Config, model: str, name: str) -> TokensRecipe:
    settings, text = config.evaluation_of(model, name), config.needs_of(model, name)
    source = config.text_of(model, name)
    begins = _held_out(config, model, source, settings.held_out)
    packed = text.layout == "packed"
    return TokensRecipe(
        **_source(config, model, source),
        **begins,
        # What comes after the documents of the training is known in the text's own order only.
        shuffle_seed=None if begins["after"] else text.shuffle_seed,
        layout=text.layout,
        context_tokens=text.context_tokens or config.models[model].context_tokens,
        amount=text.amount,
        unit="documents",
        # Packing puts BOS before each context and document by itself.
        prepend_bos=not packed and config.models[model].prepend_bos,
        dropped=settings.drop.kinds,
    )


def _source(config: Config, model: str, name: str) -> dict[str, Any]:
    text = config.texts[name]
    return {
        "version": TOKENS_VERSION,
        "model": model_recipe(config, model),
        "text_content": _content(config, text),
        "text_hub": text.hub,
        "text_revision": text.revision if text.hub else None,
        "subset": text.subset,
        "column": text.column,
    }


def _held_out(config: Config, model: str, name: str, held_out: bool) -> dict[str, Any]:
    """Where judging begins: in the split that is there for it, and where that is the one trained
    on, after the documents of the training; not held out, at the beginning of the training's."""
    text, trained = config.texts[name], config.texts[config.models[model].text]
    if not held_out:
        return {"split": text.train_split, "after": None}
    place = {"hub", "revision", "folder", "subset"}
    same = text.model_dump(include=place) == trained.model_dump(include=place)
    trained_on = same and text.evaluation_split == trained.train_split
    after = _training_tokens(config, model).hash if trained_on else None
    return {"split": text.evaluation_split, "after": after}


def sae_recipe(config: Config, name: SaeName) -> SaeRecipe:
    sweep = name.sweep
    model = config.models[sweep.model]
    settings = config.settings_of(sweep.model, sweep.architecture)
    return SaeRecipe(
        tokens=tokens_recipe(config, sweep.model, "train"),
        activations_version=ACTIVATIONS_VERSION,
        layer=sweep.layer,
        llm_batch_contexts=model.llm_batch_contexts,
        buffer_tokens=model.buffer_tokens,
        architecture=sweep.architecture,
        architecture_version=architectures.get(sweep.architecture).version,
        width=config.latents(sweep.width),
        sparsity=name.sparsity,
        settings=settings.model_dump(mode="json", exclude=settings.OUTSIDE_RECIPE),
        training=_trained_with(config, sweep.model, name.seed),
        steps=config.steps_of(sweep.model),
    )


def _trained_with(config: Config, model: str, seed: int | None) -> Training:
    """With the seed of the SAE's name. Without the reserve where no norm is left out: it changes no
    byte then."""
    training = config.training_of(model)
    if seed is not None:
        training = training.model_copy(update={"seed": seed})
    if training.drop.norm_over_median is not None:
        return training
    drop = TrainingDrop(**training.drop.model_dump(exclude={"reserve"}))
    return training.model_copy(update={"drop": drop})


def baselines_recipe(config: Config, model: str, layer: int) -> BaselinesRecipe:
    return BaselinesRecipe(
        version=BASELINES_VERSION,
        tokens=_training_tokens(config, model),
        layer=layer,
        llm_batch_contexts=config.models[model].llm_batch_contexts,
        pca_tokens=config.baselines_of(model).pca_tokens,
        cpu_threads=config.training_of(model).cpu_threads,
        # Of the same positions as the SAEs.
        drop=Drop(**config.training_of(model).drop.model_dump(exclude={"reserve"})),
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
        batch_contexts=described.batch_contexts(settings, config.models[model].llm_batch_contexts),
        cpu_threads=config.training_of(model).cpu_threads,
        inferences=list(kind.inferences) if kind and kind.inferences else [None],
        target_l0=kind.target_l0(sparsity) if kind and sparsity is not None else None,
    )


def dataset_recipe(config: Config, name: str) -> DatasetRecipe:
    """A dataset by its key in the config."""
    said = config.datasets[name]
    return DatasetRecipe(
        content=None if said.folder is None else _digest_of(config.path_of(said), (*said.files,)),
        hub=said.hub,
        revision=said.revision if said.hub else None,
        files=said.files,
        split=said.split,
        rows=said.rows,
    )


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
    config: Config, of: SetupName, subject: str, architecture: str | None = None
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
        inferences=[kind.inferences[0] if kind and kind.inferences else None],
    )


def setups(config: Config, model: str, layer: int, evaluation: str) -> list[SetupName]:
    """What an evaluation of SAE Bench sets up for a layer, for each of its seeds."""
    seeds = config.sae_bench_of(model, evaluation).seeds
    return [SetupName(model, layer, evaluation, seed) for seed in seeds]


def judging_recipes(
    config: Config,
    model: str,
    layer: int,
    evaluation: str,
    subject: str,
    architecture: str | None = None,
    sparsity: float | None = None,
) -> list[JudgedBy]:
    """By which a subject is judged by any evaluation: one recipe, or by SAE Bench one a seed."""
    if evaluation in config.text_evaluations:
        return [evaluation_recipe(config, model, evaluation, subject, architecture, sparsity)]
    return [
        sae_bench_recipe(config, setup, subject, architecture)
        for setup in setups(config, model, layer, evaluation)
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
    return judging_recipes(config, name.model, name.layer, evaluation, subject, kind, sparsity)


def checkpoint_evaluation_recipes(
    config: Config, name: SaeName, step: int, evaluation: str
) -> list[JudgedBy]:
    """Of the SAE before that step; its L0 is no target yet."""
    sweep, subject = name.sweep, checkpoint_key(sae_recipe(config, name), step)
    return judging_recipes(
        config, sweep.model, sweep.layer, evaluation, subject, sweep.architecture
    )


def judged_baselines(config: Config, model: str, evaluation: str) -> list[str]:
    """The baselines that an evaluation judges: SAE Bench, `pca` alone."""
    return baseline_names(config, model) if evaluation in config.text_evaluations else ["pca"]


def baseline_names(config: Config, model: str) -> list[str]:
    """`identity`, `pca` (all components) and `pca/k_20`, ...: the first k, as many as the sweep of
    top_k keeps."""
    sweep = config.settings_of(model, "top_k").sweep if "top_k" in config.architectures else []
    return ["identity", "pca", *(f"pca/k_{k}" for k in sweep)]


def baseline_evaluation_recipes(
    config: Config, model: str, layer: int, baseline: str, evaluation: str
) -> list[JudgedBy]:
    """Of a baseline by its name (see baseline_names)."""
    subject = baseline_key(config, model, layer, baseline)
    return judging_recipes(config, model, layer, evaluation, subject)


def baseline_key(config: Config, model: str, layer: int, baseline: str) -> str:
    """What names a baseline of a layer."""
    return digest([baselines_recipe(config, model, layer).hash, baseline])


def checkpoint_key(recipe: SaeRecipe, step: int) -> str:
    """What names a checkpoint in the store."""
    return digest([recipe.hash, step])


def published_key(place: str) -> str:
    """What names a published SAE by its place on the Hub."""
    return digest(["published", place])


def evaluation_key(recipe_hash: str, judged_sha256: str) -> str:
    """What names an evaluation in the store: its recipe with the judged bytes."""
    return digest([recipe_hash, judged_sha256])


def training_hashes(config: Config, trained: Trained) -> list[str]:
    """Short hashes of the recipes of what one job trains: what Snakemake compares for staleness."""
    return [sae_recipe(config, member).hash[:16] for member in members(config, trained)]


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
        case Baselines(model, layer):
            return {
                name: baseline_evaluation_recipes(config, model, layer, name, evaluation)
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


def _content(config: Config, source: Source, only: str | None = None) -> str | None:
    return _folder_digest(config.path_of(source), only) if source.folder is not None else None


@functools.cache
def _digest_of(folder: Path, patterns: tuple[str, ...]) -> str:
    return _content_digest(folder, matching_files(folder, patterns))


@functools.cache
def _folder_digest(folder: Path, only: str | None) -> str:
    return _content_digest(folder, [folder / only] if only else content_files(folder))


def _content_digest(folder: Path, files: Iterable[Path]) -> str:
    return digest({path.relative_to(folder).as_posix(): sha256(path) for path in files})
