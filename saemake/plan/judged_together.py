"""What is judged in one run of the LM: the SAEs of a job, or of several jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from saemake import evaluation as evaluations
from saemake.config.config import Config
from saemake.evaluation.description import Cost
from saemake.inputs import weights
from saemake.llm.cost import Lm, Reading
from saemake.paths.names import SaeName, Sweep, Trained
from saemake.plan import memory
from saemake.plan.passes import GIB, apart, fewest, of_jobs
from saemake.plan.work import Evaluate

NO_TEXT = Reading(0, 0, 0, 0, known=True)


@dataclass(frozen=True)
class Together:
    """What is judged by one evaluation in one run of the LM. `latents` are those of each codec (a
    thing and a way of choosing its latents) of each job."""

    jobs: tuple[Evaluate, ...]
    latents: tuple[tuple[int, ...], ...]

    @property
    def first(self) -> Evaluate:
        return self.jobs[0]

    @property
    def codecs(self) -> list[int]:
        """The latents of all codecs."""
        return [count for of_job in self.latents for count in of_job]

    @cached_property
    def shared(self) -> bool:
        """Whether several jobs ask for it: the first that starts judges what is there."""
        return len(self.jobs) > 1

    @property
    def trained(self) -> list[Trained]:
        """What is judged, where several jobs share it."""
        subjects = [job.subjects for job in self.jobs]
        return [each for each in subjects if isinstance(each, Sweep | SaeName)]

    def __str__(self) -> str:
        """`demo/L3/top_k/1k`, or, of several jobs, `demo (L3; top_k, gated; 1k)`."""
        return of_jobs(self.trained) if self.shared else str(self.first.subjects)


def together(config: Config, lacking: Mapping[Evaluate, Sequence[int]]) -> list[Together]:
    """What is judged together of jobs that lack something. SAEs of a hookpoint share a run of the
    LM by an evaluation where `passes.share` of the config lets them, as many as fit into
    `passes.memory_gib`. SAE Bench's own code judges a job's SAEs alone.

    After the hookpoint the LM runs for each SAE, so that others would share little.
    """
    groups: dict[tuple[object, ...], list[Evaluate]] = {}
    for job in lacking:
        groups.setdefault(_group(config, job), []).append(job)
    return [
        Together(tuple(part), tuple(tuple(lacking[job]) for job in part))
        for group in groups.values()
        for part in _fitting(config, group, lacking)
    ]


def _group(config: Config, job: Evaluate) -> tuple[object, ...]:
    """What is equal where jobs are judged together."""
    subjects = job.subjects
    shares = config.passes.across_jobs and job.evaluation in config.text_evaluations
    if not shares or not isinstance(subjects, Sweep | SaeName):
        return (job,)
    return (job.evaluation, subjects.model, subjects.hookpoint, *apart(config, subjects))


def _fitting(
    config: Config, group: list[Evaluate], lacking: Mapping[Evaluate, Sequence[int]]
) -> Sequence[Sequence[Evaluate]]:
    if config.passes.memory_gib is None or len(group) == 1:
        return [group]
    limit = config.passes.memory_gib * GIB

    def fits(first: int, last: int) -> bool:
        codecs = [count for job in group[first:last] for count in lacking[job]]
        return _needed(config, group[0], codecs) <= limit

    places = fewest(len(group), fits)
    if places is None:  # a job by itself is not held to the limit
        return [[job] for job in group]
    return [group[first:last] for first, last in pairwise(places)]


def _needed(config: Config, job: Evaluate, codecs: Sequence[int]) -> int:
    """Bytes at the largest, on a GPU or a CPU, whichever takes more. The text has no part in it."""
    shape = weights.shape(config, job.model)
    described = evaluations.on_text(job.evaluation)
    settings, model = config.evaluation_of(job.model, job.evaluation), config.models[job.model]
    batch = described.batch_contexts(settings, model.llm_batch_contexts)
    lm = Lm(shape, model.layers, job.hookpoint)
    cost: Cost = described.cost(settings, lm, NO_TEXT, codecs, batch)
    of_job = memory.of_judging(config, job.model, shape, job.evaluation, cost, codecs)
    return max(of_job.on_gpu, *of_job.on_other_gpus, of_job.on_cpu)
