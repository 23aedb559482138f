"""What is said of targets before any work: an evaluation that cannot judge, a missing key."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from saemake import evaluation
from saemake.base.errors import SaemakeError
from saemake.base.remote_files import check_installed
from saemake.config.config import Config
from saemake.paths import catalogue, judged_by
from saemake.paths.artifacts import Artifact, ComparisonTable, FigureFile, PushFile, SaeFile
from saemake.paths.files import (
    PUBLISHED_WEIGHTS,
    build_files,
    evaluation_files,
    evaluation_in,
    suite_files,
)
from saemake.paths.names import PUBLISHED, STORE, PublishedSweep, Sweep
from saemake.paths.sweeps import trained_with
from saemake.plan.stored import stored_now
from saemake.plan.work import Evaluate, behind
from saemake.recipes.judging import evaluation_recipes


def check(config: Config, artifacts: Sequence[Artifact]) -> list[str]:
    """Lines on what the evaluations of the targets leave out; no targets are a plain run's. Raises
    SaemakeError where a judge's key is missing that a job will need, or a package that the shared
    store needs."""
    if config.store.remote is not None:
        check_installed(config.store.remote)
    targets = [str(artifact) for artifact in artifacts] or build_files(config)
    jobs = list(dict.fromkeys(_judging(config, artifacts, targets)))
    for job in jobs:
        _check_key(config, job)
    subjects = dict.fromkeys(job.subjects for job in jobs)
    return [line for each in subjects for line in judged_by.left_out(config, each)]


def _judging(
    config: Config, artifacts: Sequence[Artifact], targets: Iterable[str]
) -> Iterator[Evaluate]:
    """The jobs that judge for targets: those that a plan has, and of published SAEs and pushes."""
    for target in targets:
        with contextlib.suppress(SaemakeError):  # not planned
            yield from (job for job in behind(config, [target]) if isinstance(job, Evaluate))
    for artifact in artifacts:
        match artifact:
            case SaeFile(top, sae, file) if top == PUBLISHED and file not in PUBLISHED_WEIGHTS:
                yield from _of_published(config, sae.sweep, evaluation_in(config, file))
            case ComparisonTable(sweep):
                yield from _of_published(config, sweep, None)
            case FigureFile(top, model, hookpoint) if top == PUBLISHED:
                for sweep in catalogue.load(config).sweeps():
                    if (sweep.model, sweep.hookpoint) == (model, hookpoint):
                        yield from _of_published(config, sweep, None)
            case PushFile(_, model):
                yield from _judging(config, [], suite_files(config, model))


def _of_published(config: Config, sweep: Sweep, evaluated: str | None) -> Iterator[Evaluate]:
    """One evaluation of the published SAEs of a sweep, or all of these and of the rebuilt ones."""
    published = PublishedSweep(sweep)
    if evaluated is not None:
        yield Evaluate(evaluated, published)
        return
    rebuilt = dict.fromkeys(
        trained_with(config, sae) for sae in catalogue.load(config).of_sweep(sweep)
    )
    for subjects in (published, *rebuilt):
        for name in judged_by.evaluations_of(config, subjects):
            yield Evaluate(name, subjects)


def _check_key(config: Config, job: Evaluate) -> None:
    if job.evaluation not in config.sae_bench_evaluations:
        return
    if not evaluation.by_sae_bench(job.evaluation).has_judge:
        return
    variable = judged_by.judge_key(config, job.model, job.evaluation)
    if variable is None or os.environ.get(variable) or _is_there(config, job):
        return
    raise SaemakeError(
        f"{job.evaluation} of {job.subjects} asks a judge, whose key is missing: set the"
        f" environment variable {variable}"
    )


def _is_there(config: Config, job: Evaluate) -> bool:
    """Whether the tables are at hand and of the config's recipes, or can be made of the store."""
    if all(stored_now(STORE).judged(config, job.subjects, job.evaluation)):
        return True
    wanted = {
        by_seed[0].hash
        for by_seed in evaluation_recipes(config, job.subjects, job.evaluation).values()
    }
    paths = map(Path, evaluation_files(config, job.subjects, job.evaluation))
    try:
        made = {
            row["evaluations"][job.evaluation]["recipe_hash"]
            for path in paths
            for row in json.loads(path.read_text())
        }
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return made == wanted
