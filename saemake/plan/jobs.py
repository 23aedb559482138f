"""The jobs behind targets, and how much of each the store lacks: from names and the config alone,
as the rules have them, without Snakemake."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from saemake import architectures, figures, names
from saemake.catalogue import entries, targets
from saemake.config import Config
from saemake.errors import SaemakeError
from saemake.evaluation import baselines
from saemake.names import BASELINES, EVALUATIONS, SAE_FILES, SaeName, Sweep, members
from saemake.plan.stored import Stored
from saemake.recipes import (
    baseline_evaluation_recipe,
    baseline_names,
    baselines_recipe,
    checkpoint_evaluation_recipe,
    checkpoint_key,
    sae_evaluation_recipe,
    sae_recipe,
    tokens_recipe,
)
from saemake.training.members import CHECKPOINT


@dataclass(frozen=True)
class Fetch:
    """Of a model's files."""

    model: str


@dataclass(frozen=True)
class Tokenise:
    """Of a text for a use."""

    model: str
    use: str


@dataclass(frozen=True)
class Train:
    """A sweep's pass."""

    sweep: Sweep


@dataclass(frozen=True)
class Fit:
    """Of a layer's baselines."""

    model: str
    layer: int


@dataclass(frozen=True)
class Evaluate:
    """One evaluation of a sweep, of an SAE's checkpoints, or of a layer's baselines (None)."""

    model: str
    layer: int
    evaluation: str
    judged: Sweep | SaeName | None


Job = Fetch | Tokenise | Train | Fit | Evaluate


def behind(config: Config, paths: Iterable[str]) -> list[Job]:
    """The jobs whose outputs targets are, each once.

    Raises SaemakeError where a target is no artifact of this config.
    """
    found = [job for path in paths for job in _of_target(config, path)]
    return list(dict.fromkeys(found))


def _of_target(config: Config, target: str) -> list[Job]:
    targets.check_target(config, target)
    match PurePosixPath(target).parts:
        case (entries.HUB, *_):
            return _of_published_name(config, target)
        case (names.RESULTS, model, "model.json"):
            return [Fetch(model)]
        case (names.RESULTS, model, "tokens", use, _):
            return [Tokenise(model, use)]
        case (names.RESULTS, model, layer, "figures", file):
            return _of_figure(config, model, int(layer[1:]), PurePosixPath(file).stem)
        case (names.RESULTS, model, layer, folder, file) if folder == BASELINES:
            if file == baselines.FILE:
                return [Fit(model, int(layer[1:]))]
            return _evaluations(model, int(layer[1:]), None, file)
        case (names.RESULTS, model, layer, architecture, width, *inside):
            return _of_sweep(config, Sweep(model, int(layer[1:]), architecture, width), inside)
        case _:
            raise SaemakeError(
                f"{target}: what is planned is what is built, files under {names.RESULTS}/ and"
                f" files or folders under {entries.HUB}/"
            )


def _of_published_name(config: Config, target: str) -> list[Job]:
    """Of an SAE laid out as published, or of a folder of them: with its evaluation, but for a
    checkpoint alone."""
    file = "ae.pt" if "/checkpoints/" in target else "dictionary_learning.json"
    return [
        job
        for sae in targets.saes_of_hub(config, target)
        for job in _of_sweep(config, sae.sweep, [sae.sparsity_name, file])
    ]


def _of_figure(config: Config, model: str, layer: int, figure: str) -> list[Job]:
    if figure not in figures.TRAINING:
        sweeps = names.suite_sweeps(config, model, layer)
        return [job for sweep in sweeps for job in _of_sweep(config, sweep, ["metrics.json"])]
    return [
        job
        for sweep in names.checkpointed_sweeps(config, model, layer)
        for job in (
            *_of_sweep(config, sweep, ["metrics.json"]),
            *(
                job
                for member in members(config, sweep)
                for job in _evaluations(model, layer, member, "metrics.json")
            ),
        )
    ]


def _of_sweep(config: Config, sweep: Sweep, inside: list[str]) -> list[Job]:
    match inside:
        case [table]:
            others = _evaluations(sweep.model, sweep.layer, None, table)
            return _evaluations(sweep.model, sweep.layer, sweep, table) + others
        case [_, file] if file in SAE_FILES:
            return [Train(sweep)]
        case [_, file]:
            return _evaluations(sweep.model, sweep.layer, sweep, file)
        case [sparsity, _, file] if file.endswith(".json"):
            sae = next(s for s in members(config, sweep) if s.sparsity_name == sparsity)
            return _evaluations(sweep.model, sweep.layer, sae, file)
        case _:
            return [Train(sweep)]


def _evaluations(model: str, layer: int, judged: Sweep | SaeName | None, file: str) -> list[Job]:
    """What a table is made of: one evaluation, or both."""
    wanted = [name for name in EVALUATIONS if file.startswith(name)] or EVALUATIONS
    return [Evaluate(model, layer, name, judged) for name in wanted]


@dataclass(frozen=True)
class Work:
    """What there is to do for some targets: each job with what of it the store lacks."""

    fetch: list[str]
    tokenise: list[Tokenise]
    train: dict[Sweep, list[SaeName]]
    stored: list[SaeName]
    fit: list[Fit]
    # Latents of all that an evaluation judges, one a codec: a thing and a way of choosing latents.
    evaluate: dict[Evaluate, list[int]]


def work(config: Config, targets: Iterable[str], stored: Stored) -> Work:
    """What the store lacks of the targets. A job that has nothing to do needs nothing either.

    Raises SaemakeError where a target is no artifact of this config.
    """
    return _Lack(config, stored).work(behind(config, targets))


class _Lack:
    def __init__(self, config: Config, stored: Stored) -> None:
        self.config, self.stored = config, stored
        self.recipe_of = functools.cache(functools.partial(sae_recipe, config))

    def work(self, wanted: list[Job]) -> Work:
        evaluate = {
            job: codecs
            for job in wanted
            if isinstance(job, Evaluate) and (codecs := self._codecs(job))
        }
        sweeps = dict.fromkeys(
            [job.sweep for job in wanted if isinstance(job, Train)]
            + [sweep for job in wanted if (sweep := _sweep_of(job))]
        )
        train = {sweep: self.stored.lacks(self.config, sweep) for sweep in sweeps}
        done = [s for sweep in sweeps for s in members(self.config, sweep) if s not in train[sweep]]
        train = {sweep: saes for sweep, saes in train.items() if saes}
        fit = self._unfitted(wanted)
        tokenise = self._untokenised(wanted, evaluate, train, fit)
        models = [job.model for job in tokenise] + [sweep.model for sweep in train]
        models += [job.model for job in fit] + [job.model for job in evaluate]
        models += [job.model for job in wanted if isinstance(job, Fetch)]
        return Work(list(dict.fromkeys(models)), tokenise, train, done, fit, evaluate)

    def _unfitted(self, wanted: list[Job]) -> list[Fit]:
        layers = [
            Fit(job.model, job.layer)
            for job in wanted
            if isinstance(job, Fit) or (isinstance(job, Evaluate) and job.judged is None)
        ]
        return [
            job
            for job in dict.fromkeys(layers)
            if not self.stored.has(
                "baselines", baselines_recipe(self.config, job.model, job.layer).hash
            )
        ]

    def _untokenised(
        self,
        wanted: list[Job],
        evaluate: Iterable[Evaluate],
        train: Iterable[Sweep],
        fit: Iterable[Fit],
    ) -> list[Tokenise]:
        """Of the texts that are wanted or that what there is to do reads, those not in the store;
        and before one that goes on after another, that other."""
        uses = [(job.model, job.use) for job in wanted if isinstance(job, Tokenise)]
        uses += [(job.model, job.evaluation) for job in evaluate]
        uses += [(sweep.model, "train") for sweep in train] + [(job.model, "train") for job in fit]
        missing: list[Tokenise] = []
        for model, use in dict.fromkeys(uses):
            recipe = tokens_recipe(self.config, model, use)
            if not self.stored.has("tokens", recipe.hash):
                if recipe.after and not self.stored.has("tokens", recipe.after):
                    missing.append(Tokenise(model, "train"))
                missing.append(Tokenise(model, use))
        return list(dict.fromkeys(missing))

    def _codecs(self, job: Evaluate) -> list[int]:
        """The latents of each codec that a job has to judge; of a baseline as many as it keeps, of
        all components more than any model is wide."""
        return [
            latents for latents, ways, missing in self._judged(job) if missing for _ in range(ways)
        ]

    def _judged(self, job: Evaluate) -> Iterator[tuple[int, int, bool]]:
        """Of each thing judged its latents, its ways of choosing them, and whether it is not yet
        judged."""
        match job.judged:
            case None:
                yield from self._baselines(job)
            case Sweep() as sweep:
                latents, ways = self._size(sweep)
                for sae in members(self.config, sweep):
                    recipe = sae_evaluation_recipe(self.config, sae, job.evaluation)
                    key = self.recipe_of(sae).hash
                    there = self.stored.has_evaluation(recipe, "saes", key, "ae.pt")
                    yield latents, ways, not there
            case SaeName() as sae:
                latents, ways = self._size(sae.sweep)
                for step in self.config.checkpoint_steps(job.model, sae.sweep.architecture):
                    recipe = checkpoint_evaluation_recipe(self.config, sae, step, job.evaluation)
                    key = checkpoint_key(self.recipe_of(sae), step)
                    there = self.stored.has_evaluation(recipe, "checkpoints", key, CHECKPOINT)
                    yield latents, ways, not there

    def _size(self, sweep: Sweep) -> tuple[int, int]:
        ways = len(architectures.get(sweep.architecture).inferences) or 1
        return self.config.widths[sweep.width], ways

    def _baselines(self, job: Evaluate) -> Iterator[tuple[int, int, bool]]:
        key = baselines_recipe(self.config, job.model, job.layer).hash
        for name in baseline_names(self.config, job.model):
            recipe = baseline_evaluation_recipe(
                self.config, job.model, job.layer, name, job.evaluation
            )
            there = self.stored.has_evaluation(recipe, "baselines", key, baselines.FILE)
            yield baselines.components_count(name, ALL_COMPONENTS), 1, not there


# Of a baseline with as many directions as the model is wide.
ALL_COMPONENTS = 2**63


def _sweep_of(job: Job) -> Sweep | None:
    """The sweep whose SAEs an evaluation judges."""
    judged = job.judged if isinstance(job, Evaluate) else None
    return judged.sweep if isinstance(judged, SaeName) else judged
