"""What every job does around its work: a log, clear last words, and whole files only."""

import contextlib
import ctypes
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from saemake.base import gpus, interrupts, progress, remote
from saemake.base.errors import SaemakeError, first_line
from saemake.base.saying import say
from saemake.base.store import disk_fault
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.jobs.resources import gpus_of
from saemake.paths.names import RUNNING
from saemake.records import asked, made

FULL_MEMORY = (
    "end what else uses it, let fewer SAEs share a pass (passes.memory_gib), or lower"
    " models.<name>.llm_batch_contexts or buffer_tokens (other SAEs then); `saemake plan` says what"
    " a job takes, and nothing finished is lost"
)
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class Script(Protocol):
    """What Snakemake gives a script, as far as it is read here: paths, and the config's YAML."""

    log: Sequence[str]
    input: Sequence[str]
    output: Sequence[str]
    config: Mapping[str, Any]
    resources: Mapping[str, Any]
    scriptdir: str


@contextlib.contextmanager
def job(script: Script) -> Iterator[Config]:
    """Around a job's work; gives it the config.

    Tells the screen what it does. Takes a GPU where the rule asks for one (see gpus.claim). Logs to
    the job's log, and when the block has ended well, records what its outputs were made from (see
    records.made). Where the block fails, ends the process with status 1 and one line, on the screen
    of the run or else on stderr. The traceback of an unforeseen error goes to the log, whose path
    the line gives.
    """
    _end_with_parent()
    interrupts.raised_in_slurm()
    path = Path(script.log[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=path,
        filemode="w",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    with progress.telling(RUNNING, {"log": str(path)}):
        yield from _work(script, path)


def _work(script: Script, path: Path) -> Iterator[Config]:
    try:
        # Before the work: another process may replace an input while it is going on.
        inputs = made.sums(script.input)
        config = read(script.config, Path(script.scriptdir).resolve().parents[1], [])
        # Held until the process ends.
        count = gpus_of(script.resources)
        held = _claim(config, script.output, count) if count else None
        if held:
            logging.info("GPU %s", os.environ[gpus.VISIBLE])
        yield config
        _record(config, script, inputs)
        remote.push_made()
    except BaseException as error:  # re-raised or turned into an exit status, never swallowed
        logging.error("%s", "".join(traceback.format_exception(error)))
        if isinstance(error, OSError):
            error = disk_fault(error, Path(error.filename or path))
        elif full := _full_memory(error):
            error = SaemakeError(f"{full} ({first_line(error)}): {FULL_MEMORY}; log: {path}")
        if isinstance(error, SaemakeError):
            remote.push_made()  # what else it has made is finished
            _fail(str(error))
        elif isinstance(error, Exception):
            _fail(f"{type(error).__name__}: {first_line(error)} (traceback in {path})")
        elif isinstance(error, KeyboardInterrupt):
            _interrupted()
        else:
            raise
        sys.exit(1)


def _full_memory(error: BaseException) -> str | None:
    """Whose memory is full, if torch or Python says so. By their words and names: most jobs do not
    import torch."""
    if type(error).__name__ == "OutOfMemoryError":
        return "the GPU's memory is full"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "the machine's memory is full"
    return None


def _claim(config: Config, outputs: Sequence[str], count: int) -> gpus.Held | None:
    """The GPUs of a job, which the run lets have so many. Raises SaemakeError where the config asks
    for more, since Snakemake lowers what a job takes to what the run has."""
    keys = _keys(config, outputs)
    most = max(keys.values(), default=count)
    asking = " and ".join(key for key, asked in keys.items() if asked == most)
    if count < most and gpus.on_machine():
        raise SaemakeError(
            f"this job takes {most} GPUs, and the run lets it have {count}: add --resources"
            f" gpu={most}, or lower {asking}"
        )
    return gpus.claim(count, asking)


def _keys(config: Config, outputs: Sequence[str]) -> dict[str, int]:
    """The keys of the config that say how many GPUs the job of these outputs takes. None of SAE
    Bench's own code, which knows one."""
    _, model, *_ = Path(outputs[0]).parts  # of results/ or published/
    names = {Path(part).stem for path in outputs for part in Path(path).parts}
    if names & set(config.sae_bench_evaluations):
        return {}
    keys = {f"models.{model}.lm_devices": config.models[model].lm_devices}
    if any(Path(path).name == "ae.pt" for path in outputs):
        keys["passes.devices_per_pass"] = config.passes.devices_per_pass
    return keys


def _fail(words: str) -> None:
    if not progress.failed(words):
        say(words)


def _interrupted() -> None:
    """Say it; in a job of Slurm's also to the run that waits for it, as the reason why it ends."""
    if words := interrupts.slurm_words():
        progress.failed(words)
    say(words or interrupts.WORDS)


def _record(config: Config, script: Script, inputs: dict[str, str]) -> None:
    recipes = {path: asked.recipes_of(config, path) for path in script.output}
    job = {name: by.hash for of_one in recipes.values() for name, by in of_one.items()}
    for path, sum_ in made.sums(script.output).items():
        made.write(path, made.Made(sha256=sum_, inputs=inputs, recipes=recipes[path], job=job))


def _end_with_parent() -> None:
    """Get SIGTERM when snakemake is killed, instead of running on alone (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == 1 and not _is_snakemake(1):  # it was killed before this line
            sys.exit(1)


def _is_snakemake(process: int) -> bool:
    """Whether a process is snakemake, as process 1 of a container may be."""
    try:
        return b"snakemake" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
