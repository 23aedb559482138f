"""Recipes: everything that the bytes of an artifact are a function of, and nothing else.

A recipe is hashed as JSON with sorted keys. Paths, device, logging and what is made beside an
artifact are not in it.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from saemake import architectures, versions
from saemake.config import Config, Source, content_files
from saemake.names import SaeName, Sweep, members
from saemake.sections import Closed
from saemake.store import sha256
from saemake.training.settings import Training


class Recipe(Closed):
    """A recipe of any kind; `hash` names it in the store."""

    @property
    def hash(self) -> str:
        """sha256 of the recipe's canonical JSON, in hex."""
        return digest(self.model_dump(mode="json"))


def digest(value: Any) -> str:
    """sha256 of `value` as JSON with sorted keys, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class ModelRecipe(Recipe):
    """Which weights: a folder's content, or a Hub repository and revision; and their dtype."""

    content: str | None
    hub: str | None
    revision: str | None
    gguf_file: str | None
    layers: int
    dtype: str


class TokensRecipe(Recipe):
    """The tokenised text: documents in the text's order, one a context."""

    version: int
    model: ModelRecipe
    text_content: str | None
    text_hub: str | None
    text_revision: str | None
    subset: str | None
    split: str
    column: str
    context_tokens: int
    amount: int
    unit: Literal["tokens", "documents"]


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


class EvaluationRecipe(Recipe):
    """One SAE's evaluation, made from the bytes of the SAE that its recipe gives."""

    version: int
    sae: str
    tokens: TokensRecipe
    llm_batch_contexts: int
    cpu_threads: int
    inference: str | None
    target_l0: float | None


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


def tokens_recipe(config: Config, name: str, split: str) -> TokensRecipe:
    """The tokens that a model is trained on ('train') or judged on ('evaluation')."""
    model = config.models[name]
    text = config.texts[model.text]
    training = config.training_of(name)
    batches = training.norm_batches + config.steps_of(name)
    wanted = {
        "train": batches * training.batch_tokens,
        "evaluation": model.evaluation_documents,
    }
    return TokensRecipe(
        version=versions.TOKENS,
        model=model_recipe(config, name),
        text_content=_content(config, text),
        text_hub=text.hub,
        text_revision=text.revision if text.hub else None,
        subset=text.subset,
        split=text.train_split if split == "train" else text.evaluation_split,
        column=text.column,
        context_tokens=model.context_tokens,
        amount=wanted[split],
        unit="tokens" if split == "train" else "documents",
    )


def sae_recipe(config: Config, name: SaeName) -> SaeRecipe:
    sweep = name.sweep
    model = config.models[sweep.model]
    settings = config.settings_of(sweep.model, sweep.architecture)
    return SaeRecipe(
        tokens=tokens_recipe(config, sweep.model, "train"),
        activations_version=versions.ACTIVATIONS,
        layer=sweep.layer,
        llm_batch_contexts=model.llm_batch_contexts,
        buffer_tokens=model.buffer_tokens,
        architecture=sweep.architecture,
        architecture_version=architectures.get(sweep.architecture).version,
        width=config.widths[sweep.width],
        sparsity=name.sparsity,
        settings=settings.model_dump(mode="json", exclude=settings.OUTSIDE_RECIPE),
        training=config.training_of(sweep.model),
        steps=config.steps_of(sweep.model),
    )


def evaluation_recipe(config: Config, name: SaeName) -> EvaluationRecipe:
    model = config.models[name.sweep.model]
    return EvaluationRecipe(
        version=versions.EVALUATION,
        sae=sae_recipe(config, name).hash,
        tokens=tokens_recipe(config, name.sweep.model, "evaluation"),
        llm_batch_contexts=model.llm_batch_contexts,
        cpu_threads=config.training_of(name.sweep.model).cpu_threads,
        inference=_inference(config, name.sweep.architecture),
        target_l0=architectures.get(name.sweep.architecture).target_l0(name.sparsity),
    )


def _inference(config: Config, architecture: str) -> str | None:
    """The config's way of choosing latents where the architecture has it, else its loader's."""
    ways, wanted = architectures.get(architecture).inferences, config.evaluation.inference
    return wanted if wanted in ways else next(iter(ways), None)


def checkpoint_key(recipe: SaeRecipe, step: int) -> str:
    """What names a checkpoint in the store."""
    return digest([recipe.hash, step])


def sweep_hashes(config: Config, sweep: Sweep) -> list[str]:
    """Short hashes of the recipes of a sweep's SAEs: what Snakemake compares for staleness."""
    return [sae_recipe(config, member).hash[:16] for member in members(config, sweep)]


def evaluation_hashes(config: Config, sweep: Sweep) -> list[str]:
    """Short hashes of the recipes of a sweep's evaluations."""
    return [evaluation_recipe(config, member).hash[:16] for member in members(config, sweep)]


def _content(config: Config, source: Source, only: str | None = None) -> str | None:
    return _folder_digest(config.path_of(source), only) if source.folder is not None else None


@functools.cache
def _folder_digest(folder: Path, only: str | None) -> str:
    files = [folder / only] if only else content_files(folder)
    return digest({path.relative_to(folder).as_posix(): sha256(path) for path in files})
