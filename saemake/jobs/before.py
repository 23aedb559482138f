"""What is said of targets before any work: an evaluation that cannot judge, a missing key."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from saemake import evaluation
from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.paths import judged_by
from saemake.paths.artifacts import Artifact, SaeFile
from saemake.paths.files import build_files, evaluation_files, evaluation_in
from saemake.paths.names import PUBLISHED, STORE, PublishedSweep
from saemake.plan.stored import stored_now
from saemake.plan.work import Evaluate, behind


def check(config: Config, artifacts: Sequence[Artifact]) -> list[str]:
    """Lines on what the evaluations of the targets leave out; no targets are a plain run's. Raises
    SaemakeError where a judge's key is missing that a job will need."""
    targets = [str(artifact) for artifact in artifacts] or build_files(config)
    jobs = list(dict.fromkeys(_judging(config, artifacts, targets)))
    for job in jobs:
        _check_key(config, job)
    subjects = dict.fromkeys(job.subjects for job in jobs)
    return [line for each in subjects for line in judged_by.left_out(config, each)]


def _judging(
    config: Config, artifacts: Sequence[Artifact], targets: Iterable[str]
) -> Iterable[Evaluate]:
    for artifact in artifacts:
        match artifact:
            case SaeFile(top, sae, file) if top == PUBLISHED:
                name = evaluation_in(config, file)
                if name is not None:
                    yield Evaluate(name, PublishedSweep(sae.sweep))
    for target in targets:
        try:
            planned = behind(config, [target])
        except SaemakeError:  # not planned: under published/, or a push
            continue
        yield from (job for job in planned if isinstance(job, Evaluate))


def _check_key(config: Config, job: Evaluate) -> None:
    if job.evaluation not in config.sae_bench_evaluations:
        return
    if not evaluation.by_sae_bench(job.evaluation).has_judge:
        return
    variable = judged_by.judge_key(config, job.model, job.evaluation)
    if variable is None or os.environ.get(variable):
        return
    outputs = evaluation_files(config, job.subjects, job.evaluation)
    if all(Path(path).exists() for path in outputs):
        return
    if not all(stored_now(STORE).judged(config, job.subjects, job.evaluation)):
        raise SaemakeError(
            f"{job.evaluation} of {job.subjects} asks a judge, whose key is missing: set the"
            f" environment variable {variable}"
        )
