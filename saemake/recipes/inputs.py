"""Recipes of LMs, tokenised texts and the data that SAE Bench reads."""

import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saemake.base.digest import digest
from saemake.base.store import sha256
from saemake.config.config import Config, content_files, matching_files
from saemake.config.depth import layers_of
from saemake.config.sections import Source
from saemake.recipes.kinds import DatasetRecipe, ModelRecipe, TokensRecipe

# Raised by hand when the tokens change.
TOKENS_VERSION = 3


def model_recipe(config: Config, name: str, layers: int | None = None) -> ModelRecipe:
    """An LM by its name in the config. Raises SaemakeError where its layers are neither given nor
    known (see layers_of)."""
    return _model_recipe(config, name, layers_of(config, name) if layers is None else layers)


def fetched_by(config: Config, name: str) -> str:
    """The hash of what a model is fetched by: of its recipe, but without the layers of a Hub model
    whose layers the config leaves to its files, since they are known only once it is there."""
    model = config.models[name]
    if model.hub is None or model.layers is not None:
        return model_recipe(config, name).hash
    return digest(_model_recipe(config, name, 0).model_dump(mode="json", exclude={"layers"}))


def _model_recipe(config: Config, name: str, layers: int) -> ModelRecipe:
    model = config.models[name]
    return ModelRecipe(
        content=_content(config, model, model.gguf_file),
        hub=model.hub,
        revision=model.revision if model.hub else None,
        gguf_file=model.gguf_file,
        layers=layers,
        dtype=model.dtype,
        trust_remote_code=model.trust_remote_code,
        quantization=model.quantization,
    )


def tokens_recipe(config: Config, model: str, use: str) -> TokensRecipe:
    """The tokens that a model's SAEs are trained on ('train'), or judged on by an evaluation."""
    return training_tokens(config, model) if use == "train" else _judged_on(config, model, use)


def training_tokens(config: Config, model: str) -> TokensRecipe:
    """The tokens that a model's SAEs are trained on."""
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
    after = training_tokens(config, model).hash if trained_on else None
    return {"split": text.evaluation_split, "after": after}


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
