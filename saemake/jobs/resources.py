"""The `resources:` of the rules that compute: a GPU, and where `slurm.device` of the config says on
which device they run, memory and time. Snakemake asks the functions for jobs that it plans."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from saemake.config.config import Config
from saemake.jobs.passes import Shared
from saemake.jobs.rules import hookpoint_in, setup_in
from saemake.paths.names import Subjects, Trained
from saemake.plan.work import Evaluate, Fit, Job, Look, SetUp, Train

if TYPE_CHECKING:  # what it imports takes half a second
    from saemake.plan.requests import Request

Resources = dict[str, Any]
# How many GPUs a job takes; a function of its wildcards where the model is one of them.
Count = int | Callable[[Any], int]
# `gpu:2` or `gpu:a100:2`, as sbatch --gres takes it.
GRES = re.compile(r"gpu(:[A-Za-z]\w*)?(:(?P<count>\d+))?")


def _gres(gpus: Count) -> str | Callable[[Any], str]:
    if callable(gpus):
        return lambda wildcards: f"gpu:{gpus(wildcards)}"
    return f"gpu:{gpus}"


def gpus_of(resources: Mapping[str, Any]) -> int:
    """How many GPUs a job asks for, in either of Slurm's ways."""
    if match := GRES.fullmatch(str(resources.get("gres", ""))):
        return int(match["count"] or 1)
    return int(resources.get("gpu") or 0)


class Asks:
    """What the jobs of a config ask for. Each method gives the resources of a rule, some of them
    functions of a job's wildcards. Memory and time are left out unless `planned`."""

    def __init__(self, config: Config, shared: Shared, *, planned: bool) -> None:
        self.config, self.shared, self.planned = config, shared, planned
        self._known: dict[Job, Request] = {}

    def train(self, trained: Callable[[Any], Trained], gpus: Count = 1) -> Resources:
        return self._of(lambda wildcards: Train(trained(wildcards)), gpus)

    def evaluate(self, subjects: Callable[[Any], Subjects], gpus: Count = 1) -> Resources:
        """The evaluation is a wildcard."""
        return self._of(lambda wildcards: Evaluate(wildcards.evaluation, subjects(wildcards)), gpus)

    def look(self, trained: Callable[[Any], Trained], gpus: Count = 1) -> Resources:
        return self._of(lambda wildcards: Look(trained(wildcards)), gpus)

    def fit(self, gpus: Count = 1) -> Resources:
        return self._of(lambda wildcards: Fit(wildcards.model, hookpoint_in(wildcards)), gpus)

    def set_up(self) -> Resources:
        return self._of(lambda wildcards: SetUp(setup_in(wildcards)), 1)

    def _of(self, job: Callable[[Any], Job], gpus: Count) -> Resources:
        slurm = self.config.slurm
        ways: dict[str, Resources] = {"gpus": {"gpu": gpus}, "gres": {"gres": _gres(gpus)}}
        asked = ways.get(slurm.gpus, {})
        if asked and slurm.gpu_partition is not None:
            asked["slurm_partition"] = slurm.gpu_partition
        if slurm.device is not None and self.planned:
            asked["mem_mb"] = partial(self._mem_mb, job)
            asked["runtime"] = partial(self._minutes, job)
        return asked

    def _mem_mb(self, job: Callable[[Any], Job], wildcards: Any) -> int:
        return self._request(job(wildcards)).mem_mb

    def _minutes(self, job: Callable[[Any], Job], wildcards: Any, attempt: int) -> int:
        return self._request(job(wildcards)).minutes(self.config, attempt)

    def _request(self, job: Job) -> "Request":
        if job not in self._known:
            from saemake.plan.requests import of_job

            self._known[job] = of_job(self.config, job, self.shared.passes, self.shared.judged)
        return self._known[job]
