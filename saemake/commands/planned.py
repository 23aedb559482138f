"""What a dry run would plan, asked of Snakemake itself: one truth about which jobs are behind a
file and whether they would run."""

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

from saemake import made, source
from saemake.errors import SaemakeError, first_line

PROFILE = source.ROOT / "profiles" / "default" / "config.yaml"


@dataclass(frozen=True)
class Job:
    """A job behind the targets, and why Snakemake would run it. `needed` are those of its outputs
    that are asked for, `newer` the inputs that are younger than an output; `inputs_before` is None
    where Snakemake knows nothing of how an output was made."""

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
    def known(self) -> list[str]:
        """Those needed that are there, or are gone and have left their record: of what was made
        from them that tells as well."""
        return [file for file in self.needed if Path(file).is_file() or made.read(file)]


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
        ordered = [job for level in dag.toposorted() for job in level if job.output]
        return [_job(dag, job, set(targets)) for job in ordered]


def _job(dag: Any, job: Any, targets: set[str]) -> Job:
    reason, known = dag.reason(job), dag.workflow.persistence
    feeds = {str(file) for files in dag.depending[job].values() for file in files}
    outputs = [str(file) for file in job.output]
    before = known.input(job.output[0]) if known.has_metadata(job) else None
    # Of what runs since an input is made anew Snakemake looks for no other reason; here all count.
    return Job(
        rule=job.rule.name,
        inputs=[str(file) for file in job.input],
        outputs=outputs,
        needed=[file for file in outputs if file in targets or file in feeds],
        runs=dag.needrun(job),
        missing=sorted(str(file) for file in reason.missing_output if str(file) in targets),
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
