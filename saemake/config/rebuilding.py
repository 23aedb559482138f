"""The config that rebuilds a suite elsewhere: all that its recipes depend on, and no path of this
machine."""

from pathlib import PurePath
from typing import Any

import yaml
from pydantic import BaseModel

from saemake.config.config import Config
from saemake.config.sections import Source
from saemake.config.start_from import models_before


def config_yaml(config: Config, model: str) -> str:
    """YAML to lay over the project's config. Of a folder outside the project only the last part of
    its path is told."""
    said = config.model_dump(mode="json", exclude_unset=True, exclude={"root"})
    suite, before = config.models[model].suite, models_before(config, model)
    content = {
        "build": [model],
        "models": {
            model: _portable({**said["models"][model], **_own_sections(config, model)}),
            **{lm: _portable(said["models"][lm]) for lm in _other_lms(config, model)},
            **{
                entry: _portable({**said["models"][entry], **_of_start(config, entry)})
                for entry in before
            },
        },
        "texts": {text: _portable(said["texts"][text]) for text in _texts(config, model)},
        "widths": config.widths if before else {w: config.latents(w) for w in suite.widths},
        "architectures": {name: said["architectures"][name] for name in suite.architectures},
        "logging": config.logging.without_loggers.model_dump(
            mode="json", exclude={"wandb", "tensorboard"}
        ),
    }
    if before and config.published.revisions:
        content["published"] = {"revisions": config.published.revisions}
    if datasets := _datasets(config, model):
        content["datasets"] = {name: _portable(said["datasets"][name]) for name in datasets}
    return yaml.safe_dump(content, sort_keys=False)


def _own_sections(config: Config, model: str) -> dict[str, Any]:
    """The sections that a model may override, as they are for it: whole."""
    return {
        "training": _whole(config.training_of(model)),
        "evaluations": {
            **{name: _whole(config.evaluation_of(model, name)) for name in config.text_evaluations},
            **{name: _whole(config.sae_bench_of(model, name)) for name in _by_bench(config, model)},
        },
        "baselines": _whole(config.baselines_of(model)),
        "architectures": {
            name: config.settings_of(model, name).model_dump(mode="json")
            for name in config.models[model].suite.architectures
        },
    }


def _of_start(config: Config, entry: str) -> dict[str, Any]:
    """The sections of a model entry that decide the SAEs that a suite starts from, whole."""
    return {
        "training": _whole(config.training_of(entry)),
        "architectures": {
            name: config.settings_of(entry, name).model_dump(mode="json")
            for name in config.architectures
        },
    }


def _by_bench(config: Config, model: str) -> list[str]:
    """The evaluations of the suite that SAE Bench computes."""
    in_suite = config.suite_evaluations(model)
    return [name for name in config.sae_bench_evaluations if name in in_suite]


def _other_lms(config: Config, model: str) -> list[str]:
    """The LMs besides the model itself that SAE Bench runs for the suite."""
    lms = {config.sae_bench_lm(model, name) for name in _by_bench(config, model)}
    return sorted(lms - {model})


def _datasets(config: Config, model: str) -> list[str]:
    """The data that these read."""
    return sorted(
        {
            dataset
            for name in _by_bench(config, model)
            for dataset in config.sae_bench_datasets(model, name)
        }
    )


def _whole(section: BaseModel) -> dict[str, Any]:
    """All of a section, also a `drop` that leaves nothing out, which a recipe does not name."""
    said = section.model_dump(mode="json")
    for key in type(section).model_fields:
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            said[key] = _whole(value)
    return said


def folders(config: Config, model: str) -> list[str]:
    """The folders and files that config_yaml names: a model and texts that are not on the Hub."""
    sources: list[Source] = [config.models[model]]
    sources += [config.models[lm] for lm in _other_lms(config, model)]
    sources += [config.models[entry] for entry in models_before(config, model)]
    texts = [config.texts[text] for text in _texts(config, model)]
    sources += [config.datasets[name] for name in _datasets(config, model)]
    local = [source.place for source in [*sources, *texts] if source.place is not None]
    return list(dict.fromkeys(_portable({"folder": place})["folder"] for place in local))


def _texts(config: Config, model: str) -> list[str]:
    """The texts that the model's SAEs are trained and judged on, and those of the other models."""
    uses = ("train", *config.text_evaluations)
    entries = (*_other_lms(config, model), *models_before(config, model))
    others = {config.models[entry].text for entry in entries}
    named = {config.text_of(model, use) for use in uses} | others
    return sorted(named | {part for text in named for part in config.parts_of(text)})


def _portable(source: dict[str, Any]) -> dict[str, Any]:
    """A model or text without a path of this machine."""
    key = "file" if source.get("file") is not None else "folder"
    if source.get(key) is None:
        return source
    place = PurePath(source[key])
    outside = place.is_absolute() or ".." in place.parts or source[key].startswith("~")
    return {**source, key: place.name} if outside else source
