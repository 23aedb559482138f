"""The configuration: typed and closed. config/README.md explains every key for its users.

Hyperparameters of an architecture are typed by the architecture's own file, so that adding one
touches nothing here. A model may override any key of `training` and of an architecture.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from saemake import architectures, evaluation
from saemake.architectures.description import Settings
from saemake.base.errors import SaemakeError, nearest
from saemake.config.config import Config, content_files, identifier
from saemake.config.depth import layers_if_known
from saemake.config.faults import ConfigError, fields_beside, override_place, saying_file, validated
from saemake.config.presets import with_presets
from saemake.config.sections import FIGURES, SUBJECT_COLUMNS, Model, Source, Text
from saemake.config.start_from import models_before


def read(raw: Mapping[str, Any], root: Path, files: list[Path]) -> Config:
    """Check `raw` (the merged YAML of `files`) and every override in it.

    Raises SaemakeError: one line with the key, what is wrong, the nearest right name, the file.
    """
    try:
        if "root" in raw:
            raise ConfigError(
                "root", f"unknown; {nearest('root', fields_beside(Config, ['root']))}"
            )
        config = validated(Config, {**with_presets(raw), "root": root}, lambda key: "")
        _check_names(config)
        _check_folders(config)
        _check_layers(config)
        _check_figures(config)
        for model in config.models:
            _check_evaluations(config, model)
            _check_schedule(config, model)
            models_before(config, model)
            for architecture in config.architectures:
                _check_decay(config, model, architecture)
            suite = config.models[model].suite
            for architecture, width in itertools.product(suite.architectures, suite.widths):
                check_fits(config, model, architecture, width)
    except ConfigError as fault:
        raise SaemakeError(f"{fault} ({saying_file(fault.key, raw, files)})") from None
    return config


def _check_names(config: Config) -> None:
    """Every name that one section takes from another is there."""

    def known(names: Iterable[str], known_names: Iterable[str], key: str, kind: str) -> None:
        for name in names:
            if name not in known_names:
                raise ConfigError(key, f"no {kind} '{name}'; {nearest(name, known_names)}")

    known(config.build, config.models, "build", "model")
    if config.published.results is not None:
        known([config.published.results], config.datasets, "published.results", "dataset")
    if config.slurm.device is not None:
        known([config.slurm.device], config.devices, "slurm.device", "device")
    for name in config.architectures:
        known([name], architectures.variants(), f"architectures.{name}", "architecture")
    for name in config.evaluations:
        if name not in evaluation.names():
            right = nearest(name, evaluation.names())
            raise ConfigError(f"evaluations.{name}", f"unknown; {right}")
    for name, text in config.texts.items():
        known(text.mix, config.texts, f"texts.{name}.mix", "text")
        for part in text.mix:
            if config.texts[part].mix:
                raise ConfigError(
                    f"texts.{name}.mix", f"'{part}' is a mixture itself; name its parts"
                )
    by_identifier: dict[str, str] = {}
    for name, model in config.models.items():
        at = f"models.{name}"
        other = by_identifier.setdefault(identifier(name), name)
        if other != name:
            raise ConfigError(at, f"differs from '{other}' in punctuation only; rename one")
        for overridden in model.architectures:
            known(
                [overridden],
                config.architectures,
                f"{at}.architectures.{overridden}",
                "architecture",
            )
        for overridden in model.evaluations:
            known([overridden], config.evaluations, f"{at}.evaluations.{overridden}", "evaluation")
        known([model.text], config.texts, f"{at}.text", "text")
        known(model.suite.widths, config.widths, f"{at}.suite.widths", "width")
        shown = model.suite.evaluations or []
        known(shown, config.evaluations, f"{at}.suite.evaluations", "evaluation")
        known(
            model.suite.architectures,
            config.architectures,
            f"{at}.suite.architectures",
            "architecture",
        )
        _check_seeds(config, name)
        places = {hookpoint.is_transcoder for hookpoint in model.suite.hookpoints}
        for architecture in model.suite.architectures:
            kind = architectures.get(architecture)
            if not any(kind.stands_at(transcoder=place) for place in places):
                of = "transcoders" if kind.skip else "SAEs"
                raise ConfigError(
                    f"{at}.suite.architectures",
                    f"{architecture} is of {of} alone, and none of suite.sites is for these",
                )


def _check_seeds(config: Config, name: str) -> None:
    """The seeds of a suite have that of its sweeps, whose paths name no seed."""
    seeds, default = config.models[name].suite.seeds, config.training_of(name).seed
    if seeds is not None and default not in seeds:
        place = override_place(config.models[name].training, "training", name)("seed")
        raise ConfigError(
            f"models.{name}.suite.seeds",
            f"lacks {default}, the seed of the SAEs whose paths name none ({place}.seed); add it",
        )


def _check_folders(config: Config) -> None:
    places: dict[str, Source] = {f"models.{name}": model for name, model in config.models.items()}
    places |= {f"texts.{name}": text for name, text in config.texts.items()}
    places |= {f"datasets.{name}": data for name, data in config.datasets.items()}
    for place, source in places.items():
        file = source.file if isinstance(source, Text) else None
        if file is not None and not config.path_of(source).is_file():
            raise ConfigError(f"{place}.file", f"there is no file {config.path_of(source)}")
        if source.folder is None:
            continue
        folder = config.path_of(source)
        if not folder.is_dir():
            raise ConfigError(f"{place}.folder", f"there is no folder {folder}")
        if not content_files(folder):
            raise ConfigError(f"{place}.folder", f"{folder} has no files to read")
        gguf = source.gguf_file if isinstance(source, Model) else None
        if gguf is not None and not (folder / gguf).is_file():
            way_out = nearest(gguf, [path.name for path in folder.glob("*.gguf")])
            raise ConfigError(f"{place}.gguf_file", f"there is no {gguf} in {folder}; {way_out}")


def _check_layers(config: Config) -> None:
    """Every layer of a suite is there, as far as a model's layers are known without a network."""
    for name, model in config.models.items():
        layers = layers_if_known(config, name)
        if layers is None:
            continue
        if model.lm_devices > layers:
            has = f"{name} has {layers} layers to spread: write that or less"
            raise ConfigError(f"models.{name}.lm_devices", has)
        for layer in model.suite.layers:
            if layer >= layers:
                has = f"{name} has layers 0 to {layers - 1}, not {layer}"
                raise ConfigError(f"models.{name}.suite.layers", has)


def _check_figures(config: Config) -> None:
    """Every column of a figure is there, and no model has the name of their folder."""
    if FIGURES in config.models:
        raise ConfigError(f"models.{FIGURES}", f"results/{FIGURES}/ holds figures; rename it")
    columns = [
        *SUBJECT_COLUMNS,
        *(f"{name}.{column}" for name in config.evaluations for column in config.columns_of(name)),
    ]
    for name, figure in config.figures.items():
        keys = [("x", figure.x), *(("y", column) for column in figure.columns)]
        for key, column in keys:
            if column not in columns:
                right = nearest(column, columns)
                raise ConfigError(f"figures.{name}.{key}", f"no column '{column}'; {right}")


def _check_evaluations(config: Config, model: str) -> None:
    config.baselines_of(model)
    for name in config.sae_bench_evaluations:
        _check_sae_bench(config, model, name)
    for name in config.text_evaluations:
        text = config.text_of(model, name)
        if text not in config.texts:
            override = config.models[model].evaluations.get(name, {})
            place = override_place(override, f"evaluations.{name}", model)("text")
            raise ConfigError(f"{place}.text", f"no text '{text}'; {nearest(text, config.texts)}")


def _check_sae_bench(config: Config, model: str, name: str) -> None:
    override = config.models[model].evaluations.get(name, {})
    place = override_place(override, f"evaluations.{name}", model)
    if (lm := config.sae_bench_lm(model, name)) not in config.models:
        way_out = nearest(lm, config.models)
        raise ConfigError(f"{place('lm')}.lm", f"no model '{lm}'; {way_out}")
    for dataset in config.sae_bench_datasets(model, name):
        if dataset not in config.datasets:
            raise ConfigError(
                "datasets", f"{name} of {model} reads '{dataset}': say where it comes from"
            )


def _check_schedule(config: Config, model: str) -> None:
    training, steps = config.training_of(model), config.steps_of(model)
    if steps < 1:
        raise ConfigError(
            f"models.{model}.train_tokens",
            f"less than one batch of training.batch_tokens {training.batch_tokens}",
        )
    context = config.models[model].context_tokens
    if training.loss != "mse" and training.batch_tokens % context:
        raise ConfigError(
            f"{_training_place(config, model)('batch_tokens')}.batch_tokens",
            f"{training.batch_tokens} is no multiple of models.{model}.context_tokens {context},"
            f" and training.loss '{training.loss}' takes whole contexts",
        )
    place = _training_place(config, model)("warmup_steps")
    if training.warmup_steps >= steps:
        raise ConfigError(
            f"{place}.warmup_steps",
            f"{training.warmup_steps} steps of warm-up are too many: models.{model}.train_tokens"
            f" gives {steps} steps of training",
        )
    _check_before_decay(config, model, f"{place}.warmup_steps", training.warmup_steps)


def _check_loss(config: Config, model: str, architecture: str) -> None:
    """An architecture whose loss has no reconstruction error in it cannot be trained end to end."""
    loss = config.training_of(model).loss
    if loss != "mse" and not architectures.get(architecture).trains_end_to_end:
        able = [name for name in config.architectures if architectures.get(name).trains_end_to_end]
        raise ConfigError(
            f"{_training_place(config, model)('loss')}.loss",
            f"{architecture} cannot be trained by '{loss}', but {', '.join(able)} can: leave it out"
            " or set mse",
        )


def _training_place(config: Config, model: str) -> Callable[[str], str]:
    return override_place(config.models[model].training, "training", model)


def _check_before_decay(config: Config, model: str, key: str, warmup_steps: int) -> None:
    training, steps = config.training_of(model), config.steps_of(model)
    decay_start = int(training.decay_start_fraction * steps)
    if warmup_steps >= decay_start:
        override = config.models[model].training
        place = override_place(override, "training", model)("decay_start_fraction")
        raise ConfigError(
            key,
            f"{warmup_steps} steps of warm-up do not end before the decay, which starts at step"
            f" {decay_start} of {steps} ({place}.decay_start_fraction"
            f" {training.decay_start_fraction}, models.{model}.train_tokens)",
        )


def _settings_place(config: Config, model: str, architecture: str) -> Callable[[str], str]:
    override = config.models[model].architectures.get(architecture, {})
    place = override_place(override, f"architectures.{architecture}", model)
    return lambda key: f"{place(key)}.{key}"


def _check_decay(config: Config, model: str, architecture: str) -> None:
    key = config.settings_of(model, architecture).excludes_decay()
    fraction = config.training_of(model).decay_start_fraction
    if key is not None and fraction < 1:
        override = config.models[model].training
        place = override_place(override, "training", model)("decay_start_fraction")
        raise ConfigError(
            _settings_place(config, model, architecture)(key),
            f"resampling restarts the learning rate, so it cannot also decay; set"
            f" {place}.decay_start_fraction to 1, not {fraction}, or remove {key}",
        )


def check_fits(
    config: Config, model: str, architecture: str, width: str, settings: Settings | None = None
) -> None:
    """Raise ConfigError where a setting does not fit the width, or its step does not lie within
    the model's training or before its decay. `settings` None are the config's."""
    settings, steps = settings or config.settings_of(model, architecture), config.steps_of(model)
    at = _settings_place(config, model, architecture)
    _check_loss(config, model, architecture)
    for key, needed in settings.latents_needed().items():
        if needed > (latents := config.latents(width)):
            raise ConfigError(
                at(key),
                f"needs {needed} latents, more than the {latents} of widths.{width};"
                " choose a larger width or other values",
            )
    for key, step in settings.steps_before_decay().items():
        _check_before_decay(config, model, at(key), step)
    for key, step in settings.steps_needed().items():
        if step >= steps - 1:
            raise ConfigError(
                at(key),
                f"step {step} is too late: models.{model}.train_tokens gives {steps} steps; set an"
                f" earlier one in models.{model}.architectures.{architecture}",
            )
