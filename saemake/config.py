"""The configuration: typed and closed. config/README.md explains every key for its users.

Hyperparameters of an architecture are typed by the architecture's own file, so that adding one
touches nothing here. A model may override any key of `training` and of an architecture.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from saemake import architectures
from saemake.architectures.description import Settings
from saemake.errors import SaemakeError, nearest
from saemake.llm.shape import Shape
from saemake.sections import (
    Closed,
    Count,
    Flag,
    Name,
    Number,
    Reference,
    Whole,
    laid_over,
    whole,
)
from saemake.training.settings import Drop, RecordedDrop, Training

DType = Literal["float32", "bfloat16", "float16"]
Rate = Annotated[Number, Field(gt=0)]


class Source(Closed):
    """Where a model or a text comes from: a local folder or a Hub repository, never both."""

    folder: str | None = None
    hub: str | None = None
    revision: str = "main"

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give either 'folder' (a local folder) or 'hub' (a Hub id)")
        if self.folder is not None and "revision" in self.model_fields_set:
            raise ValueError("'revision' needs 'hub'; a folder has no revisions")
        return self


class Text(Source):
    """A text that `datasets` reads: its splits and the column with the documents. `document_tokens`
    and `document_bytes` are for `plan` only."""

    subset: str | None = None
    train_split: str = "train"
    evaluation_split: str
    column: str = "text"
    document_tokens: Count | None = None
    document_bytes: Count | None = None


class Suite(Closed):
    """What `rule all` and a model's figures show."""

    layers: list[Whole] = Field(min_length=1)
    architectures: list[str] = Field(min_length=1)
    widths: list[Reference] = Field(min_length=1)


class Model(Source):
    """A language model with its text and its budgets. `shape` is what `plan` counts with before the
    model is there, whose own it must be."""

    gguf_file: str | None = None
    layers: Count
    shape: Shape | None = None
    dtype: DType
    text: Reference
    context_tokens: Count
    llm_batch_contexts: Count
    buffer_tokens: Count
    train_tokens: Count
    prepend_bos: Flag = False
    evaluations: dict[str, dict[str, Any]] = Field(default={})
    baselines: dict[str, Any] = Field(default={})
    training: dict[str, Any] = Field(default={})
    architectures: dict[str, dict[str, Any]] = Field(default={})
    suite: Suite


class DictionaryLearning(Closed):
    """The evaluation of dictionary_learning, on documents at the training's context. `held_out`
    False judges on the text from its beginning, as the published suite was."""

    documents: Count
    held_out: bool
    drop: RecordedDrop = Drop()


class SaeBenchCore(Closed):
    """SAE Bench's core evaluation, on packed contexts. `text` None is the model's own; `defects`
    says whether what SAE Bench 0.6.0 computes wrongly is mended."""

    text: str | None
    held_out: bool
    shuffle_seed: Whole | None
    context_tokens: Annotated[int, BeforeValidator(whole), Field(gt=1)]
    batch_contexts: Count
    reconstruction_batches: Count
    variance_batches: Count
    defects: Literal["mended", "kept"]
    drop: RecordedDrop = Drop()


class Evaluations(Closed):
    """How SAEs are judged; a model may override any key. Their names are also in
    saemake.names."""

    dictionary_learning: DictionaryLearning
    sae_bench_core: SaeBenchCore


class Baselines(Closed):
    """What SAEs are compared with: the identity, and PCA of so many tokens of the training text."""

    pca_tokens: Count


class Tolerances(Closed):
    """How far a rebuilt SAE may be from the published one: L0 relatively, loss recovered
    absolutely; and from which mean cosine of their decoders' directions their features are the
    same."""

    l0: Annotated[Number, Field(ge=0)]
    loss_recovered: Annotated[Number, Field(ge=0)]
    decoder_cosine: Annotated[Number, Field(gt=0, le=1)]


class Published(Closed):
    """The catalogue of published SAEs, a CSV; where a repository is not to be read at `main`, its
    revision; and what counts as reproduced."""

    catalogue: str
    revisions: dict[str, str]
    tolerances: Tolerances


class Logging(Closed):
    """What training reports; never part of a recipe."""

    every_steps: Count
    dead_after_tokens: Count


class Snapshots(Closed):
    """When a pass saves what it needs to go on after a kill; never part of a recipe."""

    every_seconds: Annotated[Number, Field(ge=0)]


class Publishing(Closed):
    """How a suite is pushed to the Hub; never part of a recipe."""

    private: Flag
    overwrite: Flag
    license: str | None


class Device(Closed):
    """What a device does a second and holds, for `plan`: float32 and bfloat16 matrix products, and
    bytes to and from its memory, of each of which jobs reach the share `utilisation`."""

    float32_tflops: Rate
    bfloat16_tflops: Rate
    gigabytes_per_second: Rate
    memory_gib: Rate
    utilisation: Annotated[Rate, Field(le=1)]
    source: str


class Config(Closed):
    """The whole configuration, checked. `root` is the folder that relative folders start from."""

    build: list[Reference]
    models: dict[Name, Model]
    texts: dict[Name, Text]
    widths: dict[Name, Count]
    training: Training
    architectures: dict[str, dict[str, Any]]
    evaluations: Evaluations
    baselines: Baselines
    published: Published
    logging: Logging
    snapshots: Snapshots
    publishing: Publishing
    devices: dict[Name, Device]
    root: Path

    def training_of(self, model: str) -> Training:
        """`training` with the model's own values on top."""
        own = self.models[model].training
        values = laid_over(self.training.model_dump(), own)
        return _validated(Training, values, _override_place(own, "training", model))

    def settings_of(self, model: str, architecture: str) -> Settings:
        """The architecture's hyperparameters with the model's own values on top."""
        own = self.models[model].architectures.get(architecture, {})
        values = {**self.architectures[architecture], **own}
        section = f"architectures.{architecture}"
        place = _override_place(own, section, model)
        return _validated(architectures.get(architecture).Settings, values, place)

    def evaluations_of(self, model: str) -> Evaluations:
        """`evaluations` with the model's own values on top."""
        own, values = self.models[model].evaluations, self.evaluations.model_dump()
        for name, section in own.items():
            if name not in values:
                raise ConfigError(
                    f"models.{model}.evaluations.{name}",
                    f"no evaluation '{name}'; {nearest(name, values)}",
                )
            values[name] = laid_over(values[name], section)
            kind: Any = Evaluations.model_fields[name].annotation
            _validated(kind, values[name], _override_place(section, f"evaluations.{name}", model))
        return Evaluations.model_validate(values)

    def baselines_of(self, model: str) -> Baselines:
        """`baselines` with the model's own values on top."""
        own = self.models[model].baselines
        values = {**self.baselines.model_dump(), **own}
        return _validated(Baselines, values, _override_place(own, "baselines", model))

    def text_of(self, model: str, use: str) -> str:
        """The text that a model is trained on ('train') or judged on by an evaluation, a key of
        `texts`."""
        own = self.evaluations_of(model).sae_bench_core.text if use == "sae_bench_core" else None
        return own or self.models[model].text

    def steps_of(self, model: str) -> int:
        """Training steps: int(train_tokens / batch_tokens), as the published suite counts."""
        return self.models[model].train_tokens // self.training_of(model).batch_tokens

    def checkpoint_steps(self, model: str, architecture: str) -> list[int]:
        """The steps that an SAE is also saved before: int(steps * fraction), as the published suite
        counts."""
        fractions = self.settings_of(model, architecture).checkpoints
        return sorted({int(self.steps_of(model) * fraction) for fraction in fractions})

    def path_of(self, source: Source) -> Path:
        """The folder of a local source; a relative one starts at the project's root."""
        assert source.folder is not None
        return self.root / Path(source.folder).expanduser()


class ConfigError(SaemakeError):
    """A fault of one key; `read` adds the file that says it."""

    def __init__(self, key: str, what: str) -> None:
        self.key = key
        super().__init__(f"config key '{key}': {what}")


def read(raw: Mapping[str, Any], root: Path, files: list[Path]) -> Config:
    """Check `raw` (the merged YAML of `files`) and every override in it.

    Raises SaemakeError: one line with the key, what is wrong, the nearest right name, the file.
    """
    try:
        if "root" in raw:
            raise ConfigError("root", f"unknown; {nearest('root', _fields(Config, ['root']))}")
        config = _validated(Config, {**raw, "root": root}, lambda key: "")
        _check_names(config)
        _check_folders(config)
        for model in config.models:
            _check_evaluations(config, model)
            _check_schedule(config, model)
            for architecture in config.architectures:
                _check_decay(config, model, architecture)
            suite = config.models[model].suite
            for architecture, width in itertools.product(suite.architectures, suite.widths):
                check_fits(config, model, architecture, width)
    except ConfigError as fault:
        raise SaemakeError(f"{fault} ({_saying_file(fault.key, raw, files)})") from None
    return config


def _override_place(own: Mapping[str, Any], section: str, model: str) -> Callable[[str], str]:
    """Where a key of `section` is said: by the model's own override or by the section itself."""
    return lambda key: f"models.{model}.{section}" if key in own else section


def _validated(model: type[BaseModel], values: dict[str, Any], place: Callable[[str], str]) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    if location[-1:] == ["[key]"]:  # pydantic's place of a refused name may be another word
        location[-2:] = [str(first["input"])]
    key = ".".join(filter(None, [place(location[0] if location else ""), *location]))
    if first["type"] == "extra_forbidden":
        raise ConfigError(key, f"unknown; {nearest(location[-1], _fields(model, location))}")
    if first["type"] == "missing":
        raise ConfigError(key, "missing")
    if first["type"] == "value_error":
        raise ConfigError(key, str(first["ctx"]["error"]))
    message = first["msg"][0].lower() + first["msg"][1:]
    raise ConfigError(key, f"{message}, not {first['input']!r}")


def _fields(model: Any, location: list[str]) -> list[str]:
    """The right names beside the last part of `location`, found by walking the typed sections."""
    current = model
    for part in location[:-1]:
        if hasattr(current, "model_fields"):
            current = current.model_fields[part].annotation
        else:  # dict[str, Section]: its last argument is the section
            current = current.__args__[-1]
    return [name for name in current.model_fields if name != "root"]


def lm_name(config: Config, model: str) -> str:
    """What a model is called in config.json: its Hub id, or the config's name of a local one."""
    return config.models[model].hub or model


def identifier(name: str) -> str:
    """A name as part of a rule's name, which has letters, digits and `_` only."""
    return re.sub(r"\W", "_", name)


def _check_names(config: Config) -> None:
    """Every name that one section takes from another is there."""

    def known(names: Iterable[str], there: Iterable[str], key: str, kind: str) -> None:
        for name in names:
            if name not in there:
                raise ConfigError(key, f"no {kind} '{name}'; {nearest(name, there)}")

    known(config.build, config.models, "build", "model")
    for name in config.architectures:
        known([name], architectures.names(), f"architectures.{name}", "architecture")
    by_identifier: dict[str, str] = {}
    for name, model in config.models.items():
        at = f"models.{name}"
        other = by_identifier.setdefault(identifier(name), name)
        if other != name:
            raise ConfigError(at, f"differs from '{other}' in punctuation only; rename one")
        for own in model.architectures:
            known([own], config.architectures, f"{at}.architectures.{own}", "architecture")
        known([model.text], config.texts, f"{at}.text", "text")
        known(model.suite.widths, config.widths, f"{at}.suite.widths", "width")
        known(
            model.suite.architectures,
            config.architectures,
            f"{at}.suite.architectures",
            "architecture",
        )
        for layer in model.suite.layers:
            if layer >= model.layers:
                has = f"{name} has layers 0 to {model.layers - 1}, not {layer}"
                raise ConfigError(f"{at}.suite.layers", has)


def content_files(folder: Path) -> list[Path]:
    """What makes a local model or text what it is: every file under its folder but hidden ones and
    Markdown, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix != ".md"
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _check_folders(config: Config) -> None:
    places: dict[str, Source] = {f"models.{name}": model for name, model in config.models.items()}
    places |= {f"texts.{name}": text for name, text in config.texts.items()}
    for place, source in places.items():
        if source.folder is None:
            continue
        folder = config.path_of(source)
        if not folder.is_dir():
            raise ConfigError(f"{place}.folder", f"there is no folder {folder}")
        if not content_files(folder):
            raise ConfigError(f"{place}.folder", f"{folder} has no files to read")
        gguf = source.gguf_file if isinstance(source, Model) else None
        if gguf is not None and not (folder / gguf).is_file():
            there = nearest(gguf, [path.name for path in folder.glob("*.gguf")])
            raise ConfigError(f"{place}.gguf_file", f"there is no {gguf} in {folder}; {there}")


def _check_evaluations(config: Config, model: str) -> None:
    config.baselines_of(model)
    text = config.text_of(model, "sae_bench_core")
    if text not in config.texts:
        own = config.models[model].evaluations.get("sae_bench_core", {})
        place = _override_place(own, "evaluations.sae_bench_core", model)("text")
        raise ConfigError(f"{place}.text", f"no text '{text}'; {nearest(text, config.texts)}")


def _check_schedule(config: Config, model: str) -> None:
    training, steps = config.training_of(model), config.steps_of(model)
    if steps < 1:
        raise ConfigError(
            f"models.{model}.train_tokens",
            f"less than one batch of training.batch_tokens {training.batch_tokens}",
        )
    place = _override_place(config.models[model].training, "training", model)("warmup_steps")
    if training.warmup_steps >= steps:
        raise ConfigError(
            f"{place}.warmup_steps",
            f"{training.warmup_steps} steps of warm-up are too many: models.{model}.train_tokens"
            f" gives {steps} steps of training",
        )
    _check_before_decay(config, model, f"{place}.warmup_steps", training.warmup_steps)


def _check_before_decay(config: Config, model: str, key: str, warmup_steps: int) -> None:
    training, steps = config.training_of(model), config.steps_of(model)
    decay_start = int(training.decay_start_fraction * steps)
    if warmup_steps >= decay_start:
        own = config.models[model].training
        place = _override_place(own, "training", model)("decay_start_fraction")
        raise ConfigError(
            key,
            f"{warmup_steps} steps of warm-up do not end before the decay, which starts at step"
            f" {decay_start} of {steps} ({place}.decay_start_fraction"
            f" {training.decay_start_fraction}, models.{model}.train_tokens)",
        )


def _settings_place(config: Config, model: str, architecture: str) -> Callable[[str], str]:
    own = config.models[model].architectures.get(architecture, {})
    place = _override_place(own, f"architectures.{architecture}", model)
    return lambda key: f"{place(key)}.{key}"


def _check_decay(config: Config, model: str, architecture: str) -> None:
    key = config.settings_of(model, architecture).excludes_decay()
    fraction = config.training_of(model).decay_start_fraction
    if key is not None and fraction < 1:
        own = config.models[model].training
        place = _override_place(own, "training", model)("decay_start_fraction")
        raise ConfigError(
            _settings_place(config, model, architecture)(key),
            f"resampling restarts the learning rate, so it cannot also decay; set"
            f" {place}.decay_start_fraction to 1, not {fraction}, or remove {key}",
        )


def check_fits(config: Config, model: str, architecture: str, width: str) -> None:
    """Raise ConfigError where a setting does not fit the width, or its step does not lie within
    the model's training or before its decay."""
    settings, steps = config.settings_of(model, architecture), config.steps_of(model)
    at = _settings_place(config, model, architecture)
    for key, needed in settings.latents_needed().items():
        if needed > config.widths[width]:
            raise ConfigError(
                at(key),
                f"needs {needed} latents, more than the {config.widths[width]} of widths.{width};"
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


def _saying_file(key: str, raw: Mapping[str, Any], files: list[Path]) -> str:
    """The last file that says what `raw` has at `key`; where none does, what was on the command
    line; for a key that is missing, all files."""
    value = _at(raw, key)
    if value is None:
        return ", ".join(map(str, files))
    for path in reversed(files):
        if _at(yaml.safe_load(path.read_text()), key) == value:
            return str(path)
    return "--config"


def _at(node: Any, key: str) -> Any:
    """What stands at a dotted key; None where nothing does. A name may itself have dots."""
    if not key:
        return node
    if isinstance(node, list):
        index, _, rest = key.partition(".")
        return _at(node[int(index)], rest) if index.isdigit() and int(index) < len(node) else None
    if not isinstance(node, Mapping):
        return None
    found = (
        _at(below, key[len(str(name)) + 1 :])
        for name, below in node.items()
        if key == str(name) or key.startswith(f"{name}.")
    )
    return next((value for value in found if value is not None), None)
