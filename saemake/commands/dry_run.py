"""What a dry run would plan, asked of Snakemake itself: one truth about which jobs are behind a
file and whether they would run."""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
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
    """A job behind the targets, and why Snakemake would run it. `needed` are those of its outputs
    that are asked for or feed another job, `newer` the inputs that are younger than an output;
    `inputs_before` is None where Snakemake knows nothing of how an output was made."""

    rule: str
    inputs: list[str]
    outputs: list[str]
    needed: list[str]
    runs: bool
    missing: list[str]
    newer: list[str]
    incomplete: list[str]
    params_changed: bool
    inputs_before: list[str] | None

    @property
    def caused(self) -> bool:
        """Whether a cause to run lies with itself, not with a job before or after it."""
        inputs_changed = self.inputs_before is not None and (
            set(self.inputs_before) != set(self.inputs)
        )
        own = self.missing or self.newer or self.incomplete
        return self.runs and bool(own or self.params_changed or inputs_changed)

    @property
    def known(self) -> list[str]:
        """Those needed that are there, or are gone and have left their record: of what was made
        from them that tells as well."""
        return [file for file in self.needed if Path(file).is_file() or made.read(file)]


def behind(jobs: Sequence[Job], targets: Collection[str]) -> list[Job]:
    """Those of the jobs that are behind some of their targets, in the same order."""
    wanted, found = set(targets), []
    for job in reversed(jobs):
        if needed := [file for file in job.outputs if file in wanted]:
            found.append(dataclasses.replace(job, needed=needed))
            wanted |= set(job.inputs)
    return found[::-1]


def jobs(config_files: Sequence[Path], targets: Sequence[str]) -> list[Job]:
    """The jobs behind targets, as `snakemake -n` has them, inputs' jobs before those they feed.
    Nothing is run, and nothing on the screen.

    Raises SaemakeError where there is no rule for a target, or the Snakefile refuses the config.
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
            # Of what builds the jobs and runs none, this alone looks at what a kill left half-made.
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
    before = known.input(job.output[0]) if known.has_metadata(job) else None
    # Snakemake looks no further where a job runs since its inputs are made anew; here all counts.
    return Job(
        rule=job.rule.name,
        inputs=[str(file) for file in job.input],
        outputs=outputs,
        needed=outputs,
        runs=dag.needrun(job),
        # Of other jobs it is no cause: they make it since a job that runs needs it.
        missing=sorted(map(str, reason.missing_output if job in dag.targetjobs else ())),
        newer=sorted(str(file) for file in reason.updated_input),
        incomplete=sorted(str(file) for file in reason.incomplete_output),
        params_changed=bool(known.params_changed(job)),
        inputs_before=None if before is None else [str(file) for file in before],
    )


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Without our command line, which the Snakefile would read for targets, and without Snakemake's
    words on ours."""
    arguments = sys.argv
    sys.argv = [arguments[0]]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sys.argv = arguments
