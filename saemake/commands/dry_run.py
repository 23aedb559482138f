"""The jobs that a dry run would plan. Snakemake itself computes them, so that no other code decides
which jobs a file needs and whether they would run."""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
from snakemake.api import SnakemakeApi
from snakemake.exceptions import WorkflowError
from snakemake.settings.enums import Quietness, RerunTrigger
from snakemake.settings.types import (
    ChangeType,
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    ResourceSettings,
)

from saemake.base import source
from saemake.base.errors import SaemakeError, first_line
from saemake.records import made

PROFILE = source.ROOT / "profiles" / "default" / "config.yaml"


@dataclasses.dataclass(frozen=True)
class Job:
    """A job that the targets need, and why Snakemake would run it. `needed` are the outputs that
    are targets or inputs of another job. `newer` are the inputs that are younger than an output.
    `inputs_before` is None if Snakemake has no note of how the outputs were made. `message` finds
    what the job does in words, which may take a look at the store. `script` is the file name of
    the rule's script. `started` and `ended` are when the job that made the outputs ran, in seconds
    since 1970; None if Snakemake has no note of it."""

    rule: str
    message: Callable[[], str]
    inputs: list[str]
    outputs: list[str]
    needed: list[str]
    runs: bool
    missing: list[str]
    newer: list[str]
    incomplete: list[str]
    params_changed: bool
    inputs_before: list[str] | None
    script: str | None = None
    started: float | None = None
    ended: float | None = None

    @property
    def caused(self) -> bool:
        """Whether the job runs for a reason of its own, not because of another job."""
        inputs_changed = self.inputs_before is not None and (
            set(self.inputs_before) != set(self.inputs)
        )
        files_stale = self.missing or self.newer or self.incomplete
        return self.runs and bool(files_stale or self.params_changed or inputs_changed)

    @property
    def known(self) -> list[str]:
        """The needed files that exist, or that are gone but have a record. A record also explains
        files that were made from the file."""
        return [file for file in self.needed if Path(file).is_file() or made.read(file)]


def behind(jobs: Sequence[Job], targets: Collection[str]) -> list[Job]:
    """The jobs that these targets need, in the same order. `jobs` may be of more targets."""
    needed_files, needed_jobs = set(targets), []
    for job in reversed(jobs):
        if needed := [file for file in job.outputs if file in needed_files]:
            needed_jobs.append(dataclasses.replace(job, needed=needed))
            needed_files |= set(job.inputs)
    return needed_jobs[::-1]


def jobs(config_files: Sequence[Path], targets: Sequence[str]) -> list[Job]:
    """The jobs that targets need, as `snakemake -n` computes them. Jobs come after the jobs that
    make their inputs. Runs nothing and prints nothing.

    Raises SaemakeError if no rule makes a target, or the Snakefile refuses the config.
    """
    triggers = yaml.safe_load(PROFILE.read_text())["rerun-triggers"]
    with _alone(), SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        try:
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=1),
                config_settings=ConfigSettings(configfiles=list(config_files)),
                snakefile=source.ROOT / "Snakefile",
            )
            dag_api = workflow.dag(
                DAGSettings(
                    targets=set(targets),
                    force_incomplete=True,
                    rerun_triggers={RerunTrigger[name.upper()] for name in triggers},
                )
            )
            # Of the calls that build the jobs and run none, only this detects incomplete outputs.
            dag_api.list_changes(ChangeType.INPUT)
        except WorkflowError as error:
            raise SaemakeError(first_line(error)) from None
        except SystemExit as refused:
            raise SaemakeError(str(refused.code).removeprefix("saemake: ")) from None
        dag = workflow._workflow.dag
        levels = [[job for job in level if job.output] for level in dag.toposorted()]
        ordered = [job for level in levels for job in sorted(level, key=lambda j: str(j.output[0]))]
        return [_job(dag, job) for job in ordered]


def _job(dag: Any, job: Any) -> Job:
    reason, known = dag.reason(job), dag.workflow.persistence
    outputs = [str(file) for file in job.output]
    notes = [known.metadata(file) for file in job.output] if known.has_metadata(job) else []
    before = known.input(job.output[0]) if notes else None
    # If new inputs make a job run, Snakemake skips other reasons, so params are compared here.
    return Job(
        rule=job.rule.name,
        message=lambda: str(job.message or job.rule.name),
        inputs=[str(file) for file in job.input],
        outputs=outputs,
        needed=outputs,
        runs=dag.needrun(job),
        # For other jobs a missing output is not a cause: they make it for a job that runs.
        missing=sorted(map(str, reason.missing_output if job in dag.targetjobs else ())),
        newer=sorted(str(file) for file in reason.updated_input),
        incomplete=sorted(str(file) for file in reason.incomplete_output),
        params_changed=bool(known.params_changed(job)),
        inputs_before=None if before is None else [str(file) for file in before],
        script=None if job.rule.script is None else PurePath(str(job.rule.script)).name,
        started=min((note.starttime for note in notes if note.starttime), default=None),
        ended=max((note.endtime for note in notes if note.endtime), default=None),
    )


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hide this process's command line, from which the Snakefile would read targets, and
    Snakemake's output."""
    arguments = sys.argv
    sys.argv = [arguments[0]]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sys.argv = arguments
