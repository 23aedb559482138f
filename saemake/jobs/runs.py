"""What a run of snakemake has done so far, as its log records tell, and what its running jobs tell
of themselves."""

import contextlib
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, Self

from saemake.base import progress
from saemake.base.errors import SaemakeError
from saemake.base.telling import Told, all_told, living
from saemake.config.config import Config
from saemake.jobs import submitted
from saemake.llm.hookpoint import is_named
from saemake.paths.files import REPORT
from saemake.paths.folders import ALL, files_for
from saemake.paths.names import RESULTS, RUNNING

KIND = "run"
# As Snakemake says that a failed job has a try left.
RESTART = re.compile(r"Trying to restart job (?P<job>\d+)")
# Of more targets than these only the number is shown.
TARGETS_SHOWN = 3
# A job's message goes on with details that a row has no room for.
DETAILS = re.compile(r" \(|: |; | on (?:up to )?\d|, contexts of")
COUNTED = re.compile(
    r"^(?P<verb>\w+) (?P<count>[\d,]+ SAEs?) (?P<what>[^\s:]+):?( \((?P<names>[^)]*)\))?"
)


# As a job says it that trains for others too.
IN_ALL = re.compile(r": (?P<all>[\d,]+) SAEs in all")


def short(message: str) -> str:
    """A job's message without its details: `train 6 SAEs demo/L3/top_k/1k (...): ...` is `train
    demo/L3/top_k/1k (6 SAEs)`, and `train 1 SAE demo/L3/top_k/1k (k_2): ...` is `train
    demo/L3/top_k/1k/k_2`. With others on one run of the LM it is `train demo/L3/top_k/1k (6 of 24
    SAEs)`."""
    if counted := COUNTED.match(message):
        verb, count, what, name = counted.group("verb", "count", "what", "names")
        if in_all := IN_ALL.search(message):
            return f"{verb} {what} ({count.partition(' ')[0]} of {in_all['all']} SAEs)"
        return f"{verb} {what}/{name}" if count == "1 SAE" and name else f"{verb} {what} ({count})"
    return DETAILS.split(message.strip(), maxsplit=1)[0]


def duration(seconds: float) -> str:
    """58 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass
class Job:
    """A job of a run. `log` is its log file, by which it is found among the processes. Times are
    seconds since 1970."""

    number: int
    label: str
    message: str
    log: str | None
    started: float
    ended: float | None = None
    # Its last words, if it failed and had time for any.
    fault: str | None = None
    # Further lines of the message, such as what it replaces.
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return (self.ended or time.time()) - self.started


@dataclass
class Pass:
    """How far a running job is, as it tells itself. Each figure is the smallest and the largest of
    its SAEs."""

    label: str = ""
    unit: str = ""
    done: int = 0
    total: int = 0
    rate: float | None = None
    figures: dict[str, Sequence[float]] = field(default_factory=dict)
    fault: str | None = None
    log: str | None = None
    pid: int = 0
    started: float = 0.0

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        known = cls.__dataclass_fields__
        return cls(**{key: value for key, value in told.items() if key in known})

    @property
    def fraction(self) -> float | None:
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def left_s(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate and self.total else None


def passes(folder: Path = RUNNING) -> dict[str | None, Pass]:
    """What the living jobs of this folder tell, by their log files."""
    return {each.log: each for each in map(_pass, living(folder, progress.KIND)) if each}


def clean(folder: Path = RUNNING) -> None:
    """Remove the files of processes that have ended."""
    for kind in (KIND, progress.KIND):
        living(folder, kind, clean=True)


def fault_of(log: str | None, folder: Path = RUNNING) -> str | None:
    """The last words of a job that has failed, if it had time for any: of several with that log the
    last to have started."""
    told = [each for each in map(_pass, all_told(folder, progress.KIND)) if each]
    of_job = [each for each in told if each.log == log]
    return max(of_job, key=lambda each: each.started).fault if of_job else None


def _pass(told: Mapping[str, Any]) -> Pass | None:
    with contextlib.suppress(TypeError):
        return Pass.read(told)
    return None


class Run:
    """A run. It tells of itself by a file, which `saemake status` reads."""

    def __init__(self, folder: Path = RUNNING) -> None:
        self.started = time.time()
        self.what, self.place = "all", ""
        self.total = self.done = 0
        self.jobs: dict[int, Job] = {}
        self.failed: list[Job] = []
        # Pages that its jobs write, each a whole suite.
        self.reports: list[str] = []
        self.told = Told(folder, KIND)

    @property
    def running(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.ended is None]

    def see(self, record: logging.LogRecord) -> None:
        """Take from a record of Snakemake's what it says on jobs."""
        event = event_of(record)
        if event == "RUN_INFO":
            self.total = int(getattr(record, "stats", {}).get("total", 0))
            self.what, self.place = BUILDS or self.what, PLACE
            self.started = record.created  # it may have waited for its turn before
        elif event == "JOB_INFO":
            self._start(record)
        elif event == "JOB_FINISHED":
            self._end(getattr(record, "job_id", None), record.created)
        elif event == "JOB_ERROR":
            job = self._end(getattr(record, "jobid", None), record.created)
            if job is not None and job not in self.failed:
                self._find_fault(job, record)
                self.failed.append(job)
        elif restarted := RESTART.match(str(record.msg)):
            self.failed = [job for job in self.failed if job.number != int(restarted["job"])]
        elif event == "PROGRESS":
            self.done = int(getattr(record, "done", self.done))
            self.total = int(getattr(record, "total", self.total))
        else:
            return
        self.tell()

    def _start(self, record: logging.LogRecord) -> None:
        number = int(getattr(record, "jobid", 0))
        message = str(getattr(record, "rule_msg", None) or getattr(record, "rule_name", ""))
        message, *notes = message.strip().splitlines() or [""]
        log = next(iter(getattr(record, "log", None) or []), None)
        outputs = getattr(record, "output", None) or []
        self.reports += [path for path in outputs if PurePath(path).name == REPORT]
        self.jobs[number] = Job(number, short(message), message, log, record.created, notes=notes)

    def _find_fault(self, job: Job, record: logging.LogRecord) -> None:
        if refusal := submitted.refusal(record):
            # It has not run, and has written no log.
            job.fault, job.log = f"{job.label}: {refusal}", None
        else:
            job.fault = fault_of(job.log) or submitted.end(record)

    def _end(self, number: Any, at: float) -> Job | None:
        job = self.jobs.get(number)
        if job is not None and job.ended is None:
            job.ended = at
        return job

    def tell(self) -> None:
        self.told.write(
            {
                "pid": os.getpid(),
                "what": self.what,
                "place": self.place,
                "started": self.started,
                "done": self.done,
                "total": self.total,
                "failed": len(self.failed),
                "jobs": [asdict(job) for job in self.running],
            }
        )

    def close(self) -> None:
        self.told.close()
        clean(self.told.path.parent)


@dataclass
class Shown:
    """A run as another process tells of it, or this one."""

    what: str
    pid: int
    started: float
    done: int
    total: int
    failed: int
    jobs: list[Job]
    # The model, or model and layer, that all its jobs have.
    place: str = ""

    @classmethod
    def of(cls, run: Run) -> Self:
        started, failed = run.started, len(run.failed)
        counts = (run.done, run.total, failed)
        return cls(run.what, os.getpid(), started, *counts, run.running, run.place)

    @property
    def state(self) -> str:
        """How far it is, in words."""
        parts = [f"{self.done} of {self.total} jobs done"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        return ", ".join([*parts, duration(time.time() - self.started)])


def shown(folder: Path = RUNNING) -> list[Shown]:
    """The runs that live in this folder."""
    found = []
    for told in living(folder, KIND):
        with contextlib.suppress(TypeError, KeyError):
            jobs = [Job(**job) for job in told.pop("jobs")]
            found.append(Shown(**told, jobs=jobs))
    return found


def event_of(record: logging.LogRecord) -> str | None:
    """The name of a record's event, as Snakemake names events."""
    return getattr(getattr(record, "event", None), "name", None)


# What this process builds, in words; and the model, or model and layer, that all of it is of ('' if
# there are several). Set while the Snakefile is read.
BUILDS, PLACE = "", ""


def set_targets(config: Config, targets: Sequence[str]) -> None:
    """Say in this process's screen what is built."""
    global BUILDS, PLACE
    BUILDS = _folder(config, targets) or _listed(config, targets)
    places = [place for target in targets for place in _places(config, target)]
    PLACE = os.path.commonpath(places) if places else ""


def _listed(config: Config, targets: Sequence[str]) -> str:
    named = [f"the suite of {', '.join(config.build)}" if t == ALL else t for t in targets]
    return ", ".join(named) if len(named) <= TARGETS_SHOWN else f"{len(named)} targets"


def _folder(config: Config, targets: Sequence[str]) -> str | None:
    """The model or layer whose files the targets are (see paths.folders)."""
    for folder in _places(config, targets[0]):
        for name in dict.fromkeys([folder.split("/")[0], folder]):
            with contextlib.suppress(SaemakeError):
                if name and set(files_for(config, f"{RESULTS}/{name}")) == set(targets):
                    return name
    return None


def _places(config: Config, target: str) -> list[str]:
    """The model and layer of a target, or its model alone; '' if its path names none."""
    if target == ALL:
        suites = {model: config.models[model].suite for model in config.build}
        return [f"{model}/{at}" for model, suite in suites.items() for at in suite.hookpoints]
    _, *inside = target.split("/")
    if len(inside) < 2 or inside[0] not in config.models:
        return [""]
    return ["/".join(inside[:2]) if is_named(inside[1]) else inside[0]]
