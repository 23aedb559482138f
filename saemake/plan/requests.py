"""What one job asks a scheduler for: memory and time, from what `plan` knows of it. No torch."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saemake.config.config import Config
from saemake.paths.names import STORE
from saemake.plan.judged_together import Together, together
from saemake.plan.memory import PROCESS_BYTES
from saemake.plan.passes import Pass, cut
from saemake.plan.stored import Stored, stored_now
from saemake.plan.totals import costs
from saemake.plan.work import Evaluate, Fit, Job, Look, SetUp, Train, Work, work_of

MIB = 2**20
# What a process takes of the host's memory once it uses a GPU: the driver, CUDA's libraries.
CUDA_BYTES = 3 * 2**30
# A plan is an estimate, and a process that takes more is killed.
MEMORY_FACTOR = 1.25
# To start Python twice, to load an LM, to wait for a file system: of every job.
START_MINUTES = 10
# The content of texts is not counted: reading it takes torch, and typical documents will do.
NO_TEXTS = Path("/nonexistent")


@dataclass(frozen=True)
class Request:
    """The memory of the host in MiB, and hours on the device."""

    mem_mb: int
    hours: float

    def minutes(self, config: Config, attempt: int) -> int:
        """The time to ask for, with `slurm.time_factor` and `slurm.longest_hours` of the config.
        A second attempt asks for twice as much."""
        planned = START_MINUTES + 60 * self.hours * config.slurm.time_factor
        return math.ceil(min(planned * attempt, config.slurm.longest_hours * 60))


def of_job(
    config: Config, job: Job, passes: Sequence[Pass] = (), judged: Sequence[Together] = ()
) -> Request:
    """What a job asks for, on the device that `slurm.device` of the config names. `passes` and
    `judged` are what the run does together: the first job of each does it for all.

    Raises SaemakeError where a model's shape is not known.
    """
    assert config.slurm.device is not None
    device = config.devices[config.slurm.device]
    needed = _own(config, job, work_of(config, [job], stored_now(STORE)))
    own = [each for each in passes if isinstance(job, Train) and job.trained in each.jobs]
    with_others = [each for each in judged if job in each.jobs]
    parts = costs(
        config,
        needed,
        own or cut(config, needed.train),
        with_others or together(config, needed.evaluate),
        Stored(NO_TEXTS),
    )
    host = max((part.memory.on_cpu for part in parts), default=PROCESS_BYTES)
    if config.slurm.gpus != "none":
        host += CUDA_BYTES
    hours = sum(part.hours(device) for part in parts)
    return Request(math.ceil(MEMORY_FACTOR * host / MIB), hours)


def _own(config: Config, job: Job, needed: Work) -> Work:
    """Of what a job and all before it have to do, its own part."""
    sets_up = isinstance(job, SetUp)
    if isinstance(job, Evaluate) and job.evaluation in config.sae_bench_evaluations:
        sets_up = not config.sae_bench_of(job.model, job.evaluation).keep_setup
    return dataclasses.replace(
        needed,
        train=needed.train if isinstance(job, Train) else {},
        fit=needed.fit if isinstance(job, Fit) else [],
        evaluate=needed.evaluate if isinstance(job, Evaluate) else {},
        look=needed.look if isinstance(job, Look) else {},
        set_up=needed.set_up if sets_up else [],
    )
