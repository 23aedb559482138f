"""The configuration as a whole, and a model's own values on top of it."""

import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from saemake import architectures, evaluation
from saemake.architectures.description import Settings
from saemake.architectures.training_settings import Training
from saemake.base.sections import Closed, Count, Name, Reference, laid_over
from saemake.config.faults import override_place, validated
from saemake.config.sections import (
    Baselines,
    Dataset,
    Device,
    Features,
    Logging,
    Model,
    OwnFigure,
    Passes,
    Published,
    Publishing,
    SharedStore,
    Slurm,
    Snapshots,
    Source,
    Text,
)
from saemake.evaluation.by_sae_bench import SaeBenchEvaluation as BySaeBench
from saemake.evaluation.by_sae_bench import SaeBenchSettings
from saemake.evaluation.description import TextEvaluation as OnText

# A width that says its number of latents, `2k` for 2 x 1,024, and the most that it may say.
NUMBERED_WIDTH = re.compile(r"[1-9][0-9]{0,8}k?")
MOST_LATENTS = 2**20


# A dataset's name: its id on the Hub, mostly.
_PART = "[A-Za-z0-9][A-Za-z0-9._-]*"
DatasetName = Annotated[str, Field(pattern=f"^{_PART}(/{_PART})?$")]


def latents_in(width: str) -> int:
    """The number of latents that a width says."""
    return int(width.removesuffix("k")) * (1024 if width.endswith("k") else 1)


class Config(Closed):
    """The whole configuration, checked. `root` is the folder that relative folders start from."""

    build: list[Reference]
    models: dict[Name, Model]
    texts: dict[Name, Text]
    widths: dict[Name, Count]
    training: Training
    architectures: dict[str, dict[str, Any]]
    evaluations: dict[str, dict[str, Any]]
    datasets: dict[DatasetName, Dataset]
    baselines: Baselines
    features: Features
    published: Published
    logging: Logging
    snapshots: Snapshots
    store: SharedStore
    passes: Passes
    slurm: Slurm
    publishing: Publishing
    devices: dict[Name, Device]
    figures: dict[Name, OwnFigure] = Field(default={})
    root: Path

    def __repr__(self) -> str:
        # Short: Snakemake writes functions into its messages, with what they hold.
        return f"Config(root={str(self.root)!r})"

    __str__ = __repr__

    def columns_of(self, name: str) -> list[str]:
        """The columns that an evaluation has in metrics.json."""
        return list(evaluation.get(name).Figures.model_fields)

    def latents(self, width: str) -> int:
        """The latents of a width by its name: one of `widths`, or a number (`2k`, `3072`)."""
        return self.widths[width] if width in self.widths else latents_in(width)

    def training_of(self, model: str) -> Training:
        """`training` with the model's own values on top."""
        override = self.models[model].training
        values = laid_over(self.training.model_dump(), override)
        return validated(Training, values, override_place(override, "training", model))

    def settings_of(self, model: str, architecture: str) -> Settings:
        """The architecture's hyperparameters with the model's own values on top. A variant with a
        skip connection has those of the architecture, with its own on top."""
        base, own = architectures.base_name(architecture), self.models[model].architectures
        override = own.get(architecture, {})
        values = {
            **self.architectures.get(base, {}),
            **self.architectures[architecture],
            **own.get(base, {}),
            **override,
        }
        section = f"architectures.{architecture}"
        place = override_place(override, section, model)
        return validated(architectures.get(architecture).Settings, values, place)

    @property
    def evaluation_names(self) -> list[str]:
        """The evaluations that SAEs can be judged by, in the config's order."""
        return list(self.evaluations)

    @property
    def text_evaluations(self) -> list[str]:
        """Those that saemake computes, each on a text."""
        return [name for name in self.evaluations if issubclass(evaluation.get(name), OnText)]

    @property
    def sae_bench_evaluations(self) -> list[str]:
        """Those that SAE Bench computes."""
        return [name for name in self.evaluations if issubclass(evaluation.get(name), BySaeBench)]

    def suite_evaluations(self, model: str) -> list[str]:
        """The evaluations whose figures are in a model's metrics.json."""
        chosen = self.models[model].suite.evaluations
        return self.text_evaluations if chosen is None else chosen

    def evaluation_of(self, model: str, name: str) -> evaluation.description.Settings:
        """The settings of an evaluation that reads a text, with the model's own values on top."""
        settings: evaluation.description.Settings = self._evaluation(model, name)
        return settings

    def sae_bench_of(self, model: str, name: str) -> SaeBenchSettings:
        """The settings of an evaluation that SAE Bench computes, with the model's own values on
        top."""
        settings: SaeBenchSettings = self._evaluation(model, name)
        return settings

    def sae_bench_lm(self, model: str, name: str) -> str:
        """The LM that an evaluation of SAE Bench runs for SAEs of a model, a key of `models`."""
        return evaluation.by_sae_bench(name).lm(self.sae_bench_of(model, name), model)

    def sae_bench_datasets(self, model: str, name: str) -> list[str]:
        """What an evaluation of SAE Bench reads, keys of `datasets`."""
        return evaluation.by_sae_bench(name).datasets(self.sae_bench_of(model, name))

    def _evaluation(self, model: str, name: str) -> Any:
        override = self.models[model].evaluations.get(name, {})
        values = laid_over(self.evaluations[name], override)
        place = override_place(override, f"evaluations.{name}", model)
        return validated(evaluation.get(name).Settings, values, place)

    def needs_of(self, model: str, name: str) -> evaluation.description.Text:
        """The text that an evaluation reads."""
        return evaluation.on_text(name).text(self.evaluation_of(model, name))

    def baselines_of(self, model: str) -> Baselines:
        """`baselines` with the model's own values on top."""
        override = self.models[model].baselines
        values = {**self.baselines.model_dump(), **override}
        return validated(Baselines, values, override_place(override, "baselines", model))

    def text_of(self, model: str, use: str) -> str:
        """The text that a model is trained on ('train') or judged on by an evaluation, a key of
        `texts`."""
        named = self.needs_of(model, use).name if use != "train" else None
        return named or self.models[model].text

    def steps_of(self, model: str) -> int:
        """Training steps: int(train_tokens / batch_tokens), as the published suite counts."""
        return self.models[model].train_tokens // self.training_of(model).batch_tokens

    def gpus_to_train(self, model: str) -> int:
        """The GPUs of a job that trains a model's SAEs: for the LM and for the SAEs, the same."""
        return max(self.passes.devices_per_pass, self.models[model].lm_devices)

    def checkpoint_steps(self, model: str, architecture: str) -> list[int]:
        """The steps that an SAE is also saved before: int(steps * fraction), as the published suite
        counts."""
        fractions = self.settings_of(model, architecture).checkpoints
        return sorted({int(self.steps_of(model) * fraction) for fraction in fractions})

    def path_of(self, source: Source) -> Path:
        """The folder of a local source; a relative one starts at the project's root."""
        assert source.folder is not None
        return self.root / Path(source.folder).expanduser()


def lm_name(config: Config, model: str) -> str:
    """What a model is called in config.json: its Hub id, or the config's name of a local one."""
    return config.models[model].hub or model


def identifier(name: str) -> str:
    """A name as part of a rule's name, which has letters, digits and `_` only."""
    return re.sub(r"\W", "_", name)


def matching_files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The files under a folder that match a pattern, sorted, without hidden ones."""
    return [
        path
        for path in _visible_files(folder)
        if any(fnmatch(path.relative_to(folder).as_posix(), pattern) for pattern in patterns)
    ]


def content_files(folder: Path) -> list[Path]:
    """What makes a local model or text what it is: every file under its folder but hidden ones and
    Markdown, sorted."""
    return [path for path in _visible_files(folder) if path.suffix != ".md"]


def _visible_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
