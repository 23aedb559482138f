"""The rules that train, judge and join: their names, files and wildcards, from the config.

A rule of a sweep has the names of its SAEs in its outputs. The rule beside it makes one SAE that
the sweep does not list. `{...}` are Snakemake's wildcards; `wildcards` has their values in a job.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from saemake.config.config import NUMBERED_WIDTH, Config, identifier
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import catalogue
from saemake.paths.files import checkpoint_files, details_file, latents_file
from saemake.paths.names import (
    BASELINES,
    CHECKPOINTS,
    PCA,
    PUBLISHED,
    RESULTS,
    Baselines,
    Checkpoints,
    PublishedSweep,
    SaeName,
    SetupName,
    Subjects,
    Sweep,
    Trained,
    dataset_file,
    sparsity_name,
)
from saemake.paths.spelling import sae_of
from saemake.paths.sweeps import latents_for
from saemake.recipes.judging import setups

# The parts of an SAE's path below its width.
ONE_SAE = "[^/]+(?:/seed_[0-9]+)?"
# An SAE of any model, by wildcards.
ANY_SAE = "{model}/{hookpoint}/{architecture}/{width}/{sae}"


@dataclass(frozen=True)
class TrainRule:
    """A rule that trains: a sweep of a model and an architecture, or if `alone`, one SAE that the
    sweep does not list. The hookpoint and the width are wildcards."""

    config: Config
    model: str
    architecture: str
    alone: bool

    def rule_name(self, stage: str) -> str:
        """A name that Snakemake takes: `train__demo__top_k`, or `train__demo__top_k__one`."""
        parts = [stage, identifier(self.model), identifier(self.architecture)]
        return "__".join([*parts, *(["one"] if self.alone else [])])

    @property
    def swept(self) -> list[str]:
        """The sparsities of the sweep: `k_20`, ..."""
        sweep = self.config.settings_of(self.model, self.architecture).sweep
        return [sparsity_name(self.architecture, value) for value in sweep]

    @property
    def checkpoints(self) -> list[str]:
        return checkpoint_files(self.config, self.model, self.architecture)

    @property
    def place(self) -> str:
        """The path of the sweep or of the SAE, without results/."""
        folder = f"{self.model}/{{hookpoint}}/{self.architecture}/{{width}}"
        return f"{folder}/{{sae}}" if self.alone else folder

    @property
    def folders(self) -> list[str]:
        """The folder of each SAE."""
        names = [""] if self.alone else [f"/{name}" for name in self.swept]
        return [f"{RESULTS}/{self.place}{name}" for name in names]

    def files(self, names: Iterable[str]) -> list[str]:
        """Files of these names, of each SAE."""
        return in_each(self.folders, names)

    @property
    def constraints(self) -> dict[str, str]:
        """What the wildcards match, so that one rule makes each file. A sweep's rule takes the
        widths that all its SAEs fit into. The other rule takes the SAEs that the sweep does not
        list, and all at widths that are too narrow for the sweep."""
        widths = "|".join([*map(re.escape, self.config.widths), NUMBERED_WIDTH.pattern])
        fewest = latents_for(self.config, self.model, self.architecture)
        too_narrow = f"(?:{narrower(self.config, fewest)})(?=/)"
        if not self.alone:
            return {"width": f"(?!{too_narrow})(?:{widths})"}
        listed = f"(?=/(?:{'|'.join(map(re.escape, self.swept))})/(?!seed_))"
        return {"width": f"{too_narrow}|(?:{widths})(?!{listed})", "sae": ONE_SAE}

    def trained(self, wildcards: Any) -> Trained:
        """What a job trains."""
        sweep = Sweep(self.model, hookpoint_in(wildcards), self.architecture, wildcards.width)
        return sae_of(self.config, sweep, *wildcards.sae.split("/")) if self.alone else sweep


@dataclass(frozen=True)
class EvaluateRule:
    """A rule that judges, by the wildcard {evaluation}, what one run of the LM judges together.
    There are two of each: `outputs` are those of an evaluation that reads a text, `by_sae_bench`
    those of one that SAE Bench computes.

    `folders` are where its tables are written, `log` the beginning of its log's path, and `latents`
    says whether what was seen of each latent is written too."""

    rule: str
    subjects: Callable[[Any], Subjects]
    folders: list[str]
    inputs: list[str]
    model: str
    log: str
    latents: bool = True
    constraints: Mapping[str, str] = field(default_factory=dict)

    @property
    def outputs(self) -> list[str]:
        return self._with(latents_file)

    @property
    def by_sae_bench(self) -> list[str]:
        return self._with(details_file)

    def _with(self, beside: Callable[[str], str]) -> list[str]:
        """The tables, each with what lies beside it of an SAE."""
        evaluation = "{evaluation}"
        files = [f"{evaluation}.json", *([beside(evaluation)] if self.latents else [])]
        return in_each(self.folders, files)


@dataclass(frozen=True)
class JoinRule:
    """A rule that joins the evaluations in each of its folders into a metrics.json: those of the
    suite that can judge its subjects. `called` names what they are of, in its message."""

    rule: str
    subjects: Callable[[Any], Subjects]
    folders: list[str]
    log: str
    called: str
    constraints: Mapping[str, str] = field(default_factory=dict)

    def tables(self, names: Iterable[str]) -> list[str]:
        """Tables of these names, in each folder."""
        return in_each(self.folders, names)


def in_each(folders: Iterable[str], names: Iterable[str]) -> list[str]:
    """Files of these names, in each folder."""
    names = list(names)
    return [f"{folder}/{name}" for folder in folders for name in names]


def narrower(config: Config, fewest: int) -> str:
    """A pattern for the names of the widths that have fewer latents than `fewest`."""
    names = [re.escape(name) for name, latents in config.widths.items() if latents < fewest]
    thousands = [f"{n}k" for n in range(1, -(-fewest // 1024))]
    # What the config names is not a number, whatever it looks like.
    numbered = f"(?!(?:{'|'.join(map(re.escape, config.widths))})/)"
    return "|".join([*names, f"{numbered}(?:{'|'.join([*thousands, below(fewest)])})"])


def below(limit: int) -> str:
    """A pattern for the whole numbers from 1 to `limit` - 1, without leading zeros. It has a few
    parts for each digit: an alternative for each number would take seconds to compile."""
    digits = str(limit)
    parts = ["(?!)"]
    if len(digits) > 1:
        parts.append(f"[1-9][0-9]{{0,{len(digits) - 2}}}")
    for place, digit in enumerate(map(int, digits)):
        least = 1 if place == 0 else 0
        if digit > least:
            rest = len(digits) - place - 1
            parts.append(f"{digits[:place]}[{least}-{digit - 1}][0-9]{{{rest}}}")
    return "|".join(parts)


def hookpoint_in(wildcards: Any) -> Hookpoint:
    """The hookpoint that a job's wildcards name."""
    return Hookpoint.named(wildcards.hookpoint)


def sweep_in(wildcards: Any) -> Sweep:
    """The sweep that a job's wildcards name."""
    return Sweep(wildcards.model, hookpoint_in(wildcards), wildcards.architecture, wildcards.width)


def sae_in(config: Config, wildcards: Any) -> SaeName:
    """The SAE that a job's wildcards name."""
    return sae_of(config, sweep_in(wildcards), *wildcards.sae.split("/"))


def traced_in(config: Config, wildcards: Any) -> SaeName:
    """The transcoder that a job's wildcards name in circuit-tracer's format, of layer 0 where they
    name none."""
    hookpoint = Hookpoint.at(int(getattr(wildcards, "layer", 0)), wildcards.site)
    sweep = Sweep(wildcards.model, hookpoint, wildcards.architecture, wildcards.width)
    return sae_of(config, sweep, *wildcards.sae.split("/"))


def setup_in(wildcards: Any) -> SetupName:
    """The setup that a job's wildcards name."""
    layer, seed = int(wildcards.layer), int(wildcards.seed)
    return SetupName(wildcards.model, layer, wildcards.evaluation, seed)


def setup_inputs(config: Config, setup: SetupName) -> dict[str, Any]:
    """What an evaluation of SAE Bench is set up from: the LM that runs, and the data."""
    lm = config.sae_bench_lm(setup.model, setup.evaluation)
    data = config.sae_bench_datasets(setup.model, setup.evaluation)
    return {"model": f"{RESULTS}/{lm}/model.json", "data": list(map(dataset_file, data))}


def judging_inputs(config: Config, subjects: Subjects, name: str) -> dict[str, Any]:
    """What SAE Bench judges with: the same, and what is set up, where it is kept."""
    prepared = setups(config, subjects.model, subjects.hookpoint.layer, name)
    kept = config.sae_bench_of(subjects.model, name).keep_setup
    made = [f"{RESULTS}/{setup}.json" for setup in prepared] if kept else []
    return {**setup_inputs(config, prepared[0]), "setups": made}


def baselines_in(wildcards: Any) -> Baselines:
    """The baselines that a job's wildcards name."""
    return Baselines(wildcards.model, hookpoint_in(wildcards))


def _pairs(config: Config) -> list[tuple[str, str]]:
    return [(model, kind) for model in config.models for kind in config.architectures]


def train_rules(config: Config) -> list[TrainRule]:
    """The rules that train."""
    return [TrainRule(config, *pair, alone) for pair in _pairs(config) for alone in (False, True)]


def evaluate_rules(config: Config) -> Iterator[EvaluateRule]:
    """The rules that judge."""
    for each in train_rules(config):
        yield EvaluateRule(
            rule=each.rule_name("evaluate"),
            subjects=each.trained,
            folders=each.folders,
            inputs=each.files(["ae.pt", "config.json", "provenance.json"]),
            model=each.model,
            log=f"evaluate/{each.place}_",
            constraints=each.constraints,
        )
        if each.alone and each.checkpoints:
            named = replace(each, alone=False)
            yield EvaluateRule(
                rule=named.rule_name("evaluate_checkpoints"),
                subjects=partial(_checkpoints, each),
                folders=each.files([CHECKPOINTS]),
                inputs=each.files([*each.checkpoints, "config.json"]),
                model=each.model,
                log=f"evaluate/{each.place}_checkpoints_",
                latents=False,
                constraints={"sae": ONE_SAE},
            )
    folder = f"{RESULTS}/{{model}}/{{hookpoint}}/{BASELINES}"
    yield EvaluateRule(
        rule="evaluate_baselines",
        subjects=baselines_in,
        folders=[folder],
        inputs=[f"{folder}/{PCA}"],
        model="{model}",
        log=f"evaluate/{{model}}/{{hookpoint}}/{BASELINES}_",
        latents=False,
    )
    known = catalogue.load(config)
    for sweep in known.sweeps():
        parts = [sweep.model, sweep.hookpoint.layer, sweep.architecture, sweep.width]
        folders = [f"{PUBLISHED}/{name}" for name in known.of_sweep(sweep)]
        files = ("ae.pt", "config.json", "source.json")
        yield EvaluateRule(
            rule="__".join(["published", *(identifier(str(part)) for part in parts)]),
            subjects=partial(_always, PublishedSweep(sweep)),
            folders=folders,
            inputs=in_each(folders, files),
            model=sweep.model,
            log=f"published/{sweep}/",
        )


def join_rules(config: Config) -> Iterator[JoinRule]:
    """The rules that join."""
    for each in train_rules(config):
        below = "{wildcards.width}/{wildcards.sae}" if each.alone else "{wildcards.width}"
        called = f"{each.model}/{{wildcards.hookpoint}}/{each.architecture}/{below}"
        yield JoinRule(
            rule=each.rule_name("join"),
            subjects=each.trained,
            folders=each.folders,
            log=each.place,
            called=called,
            constraints=each.constraints,
        )
        if each.alone and each.checkpoints:
            named = replace(each, alone=False)
            yield JoinRule(
                rule=named.rule_name("join_checkpoints"),
                subjects=partial(_checkpoints, each),
                folders=each.files([CHECKPOINTS]),
                log=f"{each.place}_checkpoints",
                called=f"the checkpoints of {called}",
                constraints={"sae": ONE_SAE},
            )
    yield JoinRule(
        rule="join_baselines",
        subjects=baselines_in,
        folders=[f"{RESULTS}/{{model}}/{{hookpoint}}/{BASELINES}"],
        log=f"{{model}}/{{hookpoint}}/{BASELINES}",
        called="the baselines of {wildcards.model}/{wildcards.hookpoint}",
    )
    # One published SAE at a time: its evaluations may be there without those of its sweep.
    yield JoinRule(
        rule="join_published",
        subjects=_published,
        folders=[f"{PUBLISHED}/{ANY_SAE}"],
        log=f"{PUBLISHED}/{ANY_SAE}",
        called="published {wildcards.model}/{wildcards.hookpoint}/{wildcards.architecture}"
        "/{wildcards.width}/{wildcards.sae}",
        constraints={"sae": "[^/]+"},
    )


def _checkpoints(pass_: TrainRule, wildcards: Any) -> Checkpoints:
    trained = pass_.trained(wildcards)
    assert isinstance(trained, SaeName)
    return Checkpoints(trained)


def _published(wildcards: Any) -> PublishedSweep:
    return PublishedSweep(sweep_in(wildcards))


def _always(subjects: Subjects, wildcards: Any) -> Subjects:
    return subjects
