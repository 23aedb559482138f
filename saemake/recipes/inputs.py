"""Recipes of LMs, tokenised texts and the data that SAE Bench reads."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from saemake.base.digest import digest
from saemake.base.errors import SaemakeError
from saemake.base.store import sha256
from saemake.config.config import Config, content_files, matching_files
from saemake.config.depth import layers_of
from saemake.config.sections import Layout, Source, Text
from saemake.recipes.kinds import DatasetRecipe, ModelRecipe, PartRecipe, TokensRecipe

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


def training_tokens(config: Config, model: str, text: str | None = None) -> TokensRecipe:
    """The tokens that a model's SAEs are trained on; of another text than the model's if one is
    given."""
    training = config.training_of(model)
    batches = training.norm_batches + config.steps_of(model)
    needed, drop = batches * training.batch_tokens, training.drop
    reserve = 0 if drop.norm_over_median is None else math.ceil(needed * drop.reserve)
    source = _source(config, text or config.models[model].text, lambda each: each.train_split)
    return TokensRecipe(
        **source,
        version=TOKENS_VERSION,
        model=model_recipe(config, model),
        shuffle_seed=None,
        after=None,
        context_tokens=config.models[model].context_tokens,
        amount=needed + reserve,
        unit="tokens",
        prepend_bos=config.models[model].prepend_bos and _one_document_a_context(source),
        dropped=drop.kinds,
    )


def _judged_on(config: Config, model: str, name: str) -> TokensRecipe:
    settings, text = config.evaluation_of(model, name), config.needs_of(model, name)
    source_name = config.text_of(model, name)
    trained_on = settings.held_out and any(trained_sources(config, model, name))
    source = _source(
        config,
        source_name,
        lambda each: each.evaluation_split if settings.held_out else each.train_split,
        "packed" if text.layout == "packed" else None,
    )
    return TokensRecipe(
        **source,
        version=TOKENS_VERSION,
        model=model_recipe(config, model),
        after=training_tokens(config, model).hash if trained_on else None,
        # What comes after the documents of the training is known in the text's own order only.
        shuffle_seed=None if trained_on else text.shuffle_seed,
        context_tokens=text.context_tokens or config.models[model].context_tokens,
        amount=text.amount,
        unit="documents",
        prepend_bos=config.models[model].prepend_bos and _one_document_a_context(source),
        dropped=settings.drop.kinds,
    )


def trained_sources(config: Config, model: str, evaluation: str) -> list[list[int]]:
    """For each text that a held-out evaluation reads, in order, which of the texts of the training
    have the same rows, by their places among these. Judging begins after them.

    Raises SaemakeError if both split the same files into documents in other ways, so that rows
    cannot be compared.
    """
    judged = config.parts_of(config.text_of(model, evaluation))
    trained = config.parts_of(config.models[model].text)
    return [
        [place for place, other in enumerate(trained) if _same_rows(config, name, other)]
        for name in judged
    ]


def _same_rows(config: Config, judged: str, trained: str) -> bool:
    one, other = config.texts[judged], config.texts[trained]
    place = {"hub", "revision", "folder", "file", "subset"}
    same = one.model_dump(include=place) == other.model_dump(include=place)
    if not same or one.evaluation_split != other.train_split:
        return False
    if one.separator != other.separator:
        raise SaemakeError(
            f"config key 'texts.{judged}.separator': '{trained}' reads the same files with another"
            " one, so what was trained on cannot be told from what is held out; write the same"
        )
    return True


def _source(
    config: Config, name: str, split: Callable[[Text], str], layout: Layout | None = None
) -> dict[str, Any]:
    """A text's part of a recipe. Its contexts have the given layout, or its own."""
    text = config.texts[name]
    if text.mix:
        parts = [
            PartRecipe(**_source(config, part, split, layout), contexts=contexts)
            for part, contexts in text.mix.items()
        ]
        nothing = dict.fromkeys(
            ("text_content", "text_hub", "text_revision", "subset", "split", "column")
        )
        return {**nothing, "layout": "mixed", "mix": parts}
    return {
        "text_content": _content(config, text),
        "text_hub": text.hub,
        "text_revision": text.revision if text.hub else None,
        "subset": text.subset,
        "split": split(text),
        "column": text.column,
        "layout": layout or text.layout,
        "separator": text.separator,
        "chat": text.chat,
    }


def _one_document_a_context(source: Mapping[str, Any]) -> bool:
    """Whether some contexts are single documents. The other layouts put BOS by themselves."""
    layouts = [part.layout for part in source.get("mix", [])] or [source["layout"]]
    return "documents" in layouts


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
    if source.place is None:
        return None
    place = config.path_of(source)
    return _file_digest(place) if place.is_file() else _folder_digest(place, only)


@functools.cache
def _digest_of(folder: Path, patterns: tuple[str, ...]) -> str:
    return _content_digest(folder, matching_files(folder, patterns))


@functools.cache
def _folder_digest(folder: Path, only: str | None) -> str:
    return _content_digest(folder, [folder / only] if only else content_files(folder))


@functools.cache
def _file_digest(file: Path) -> str:
    return _content_digest(file.parent, [file])


def _content_digest(folder: Path, files: Iterable[Path]) -> str:
    return digest({path.relative_to(folder).as_posix(): sha256(path) for path in files})
