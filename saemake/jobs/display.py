"""What a run shows: on a terminal a table that is painted again and again below the lines of what
has finished; elsewhere a plain line an event.
"""

import contextlib
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable

from rich.cells import cell_len
from rich.text import Text

from saemake.base import interrupts, saying
from saemake.jobs import board
from saemake.jobs.runs import Job, Run, Shown, duration, event_of, passes
from saemake.jobs.screen import NOT_ALL, ShortFailures
from saemake.jobs.terminal import Terminal

PAINT_S = 0.5
TRACEBACK, HELD_LINES = "Traceback (most recent call last):", 200
# Outside a terminal a long job says this often how far it is.
REPORT_S = 60.0
GREEN, RED, UNCOLOURED = "\x1b[32m{}\x1b[0m", "\x1b[31m{}\x1b[0m", "{}"
# What Snakemake says of every run.
NOISE = re.compile(
    r"None$|Building DAG of jobs|Using shell: |Provided (cores|remote nodes|resources)"
    r"|Rules claiming|Group jobs: |Conda environments: |Singularity containers: |Select jobs to"
    r"|Execute \d+ jobs|Complete log\(s\): |Assuming unrestricted|Elapsed time: "
    r"|Updating checkpoint|Config file .* is extended|Exiting because a job execution failed"
)
SILENT_EVENTS = {
    *("WORKFLOW_STARTED", "RESOURCES_INFO", "SHELLCMD", "PROGRESS", "JOB_STARTED", "RULEGRAPH"),
    *("DEBUG_DAG",),
}


class Display(logging.Handler):
    """Shows the records of a run in lines. A subclass says where."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.failures = ShortFailures(self)
        self.addFilter(self.failures)
        self.begun = False
        self.interrupted = self.ended = False
        self.ending = threading.Event()
        self.ticker = threading.Thread(target=self._tick, name="progress", daemon=True)

    # Of a subclass.
    every_s = PAINT_S

    def write(self, words: str, colour: str = UNCOLOURED) -> None:
        raise NotImplementedError

    def begin(self) -> None:
        """The run has something to do."""

    def job_starts(self, job: Job) -> None:
        """A job starts."""

    def _is_noise(self, event: str | None, words: str) -> bool:
        said_by_us = event == "ERROR" and NOT_ALL in words and bool(self.run.failed)
        return said_by_us or event in SILENT_EVENTS or NOISE.match(words) is not None

    def job_ends(self, job: Job) -> None:
        """A job has ended well."""

    def tick(self) -> None:
        """Called again and again."""

    def emit(self, record: logging.LogRecord) -> None:
        event, words = event_of(record), str(record.msg)
        if event == "RUN_INFO":
            if not self.begun:
                self.begun = True
                self.begin()
                self.ticker.start()
        elif event == "JOB_INFO":
            if job := self.run.jobs.get(getattr(record, "jobid", -1)):
                self.job_starts(job)
        elif event == "JOB_FINISHED":
            if job := self.run.jobs.get(getattr(record, "job_id", -1)):
                self.job_ends(job)
        elif words == interrupts.MESSAGE:
            self.interrupted = True  # it is said last
        elif not self._is_noise(event, words):
            self.write(words, RED if record.levelno >= logging.ERROR else UNCOLOURED)

    def close(self) -> None:
        """Say the last words, once: logging closes what Snakemake has closed."""
        if not self.ended:
            self.ended = True
            self.end()
        super().close()

    def end(self) -> None:
        self.ending.set()
        if self.ticker.is_alive():
            self.ticker.join(PAINT_S * 4)
        self.run.close()

    def last_words(self) -> list[tuple[str, str]]:
        """What is said at the end, and in which colour. Of a failure our line comes last."""
        run, took = self.run, duration(time.time() - self.run.started)
        if self.interrupted:
            return [(interrupts.MESSAGE, UNCOLOURED)]
        if self.failures.interrupted or not self.begun:
            return []
        if run.failed:
            said = f"{run.done} of {run.total} jobs done, {len(run.failed)} failed, {took}"
            return [(said, UNCOLOURED), (f"saemake: {self._failure()}", RED)]
        if run.done < run.total:
            return []
        built = (f"Built {run.what}: {_jobs(run.total)}, {took}", GREEN)
        return [built, *((f"open {report}", UNCOLOURED) for report in run.reports)]

    def _failure(self) -> str:
        first = self.run.failed[0]
        fault = first.fault or f"{first.label} failed"
        log = f"; its log is {first.log}" if first.log and first.log not in fault else ""
        count = len(self.run.failed)
        return f"{count} jobs failed; the first: {fault}{log}" if count > 1 else f"{fault}{log}"

    def _tick(self) -> None:
        while not self.ending.wait(self.every_s):
            with contextlib.suppress(Exception):  # a picture less is no reason to fail
                self.tick()


class Plain(Display):
    """A plain line an event on stderr."""

    every_s = REPORT_S / 4

    def __init__(self, run: Run, write: Callable[[str], None] = saying.write) -> None:
        super().__init__(run)
        self.writes = write
        self.reported: dict[int, float] = {}

    def write(self, words: str, colour: str = UNCOLOURED) -> None:
        self.writes(words)

    def begin(self) -> None:
        self.write(f"Building {self.run.what}: {_jobs(self.run.total)}")

    def job_starts(self, job: Job) -> None:
        self.write("\n".join([f"{_time(job.started)} Job {job.number}: {job.message}", *job.notes]))

    def job_ends(self, job: Job) -> None:
        ended = sum(each.ended is not None for each in self.run.jobs.values())
        count = f"{ended - len(self.run.failed)} of {self.run.total}"
        words = f"done: {job.label}, {duration(job.seconds)} ({count})"
        self.write(f"{_time(job.ended or time.time())} Job {job.number} {words}")

    def tick(self) -> None:
        now, told = time.time(), passes()
        for job in self.run.running:
            each = told.get(job.log)
            if each is None or each.fraction is None:
                continue
            if now - self.reported.get(job.number, job.started) >= REPORT_S:
                self.reported[job.number] = now
                self.write(f"{_time(now)} Job {job.number}: {job.label}: {board.words(each)}")

    def end(self) -> None:
        super().end()
        for words, _ in self.last_words():
            self.write(words)


class Live(Display):
    """On a terminal: a table of what runs, below the lines of what has ended."""

    def __init__(self, run: Run, colour: bool) -> None:
        super().__init__(run)
        encoding = getattr(sys.stderr, "encoding", None) or ""
        self.colour, self.unicode = colour, encoding.lower().startswith("utf")
        self.held: list[str] = []
        # How far the running jobs are, also when their processes have told it last.
        self.known: dict[str | None, board.Pass] = {}
        self.terminal = Terminal(self._shown)

    def _shown(self, line: str) -> list[str]:
        """What is shown of what a job writes. A traceback waits for its last line: one that Ctrl-C
        caused, in a job that had not yet started its work, is left out."""
        if line == interrupts.MESSAGE:
            self.interrupted = True  # it is said last
            return []
        if line != TRACEBACK and not self.held:
            return [line]
        self.held.append(line)
        goes_on = line == TRACEBACK or line.startswith(" ")
        if goes_on and len(self.held) < HELD_LINES:
            return []
        held, self.held = self.held, []
        return [] if line == "KeyboardInterrupt" else held

    def write(self, words: str, colour: str = UNCOLOURED) -> None:
        self.terminal.say(words, colour if self.colour else UNCOLOURED)
        if self.begun and not self.ending.is_set():
            self.tick()

    def begin(self) -> None:
        self.tick()

    def job_starts(self, job: Job) -> None:
        if job.notes:
            self.write("\n".join([job.label, *job.notes]))
        self.tick()

    def job_ends(self, job: Job) -> None:
        if job.log:  # only a name for files has none
            self.write(f"done  {job.label}, {duration(job.seconds)}", GREEN)

    def tick(self) -> None:
        if self.ending.is_set():
            return
        # The last column stays free: after it a terminal may wrap.
        look = board.Look(self.terminal.size.columns - 1, self.colour, self.unicode)
        lines = board.lines([Shown.of(self.run)], self._passes(), look)
        self.terminal.paint(["", *lines], [0, *(_cells(line) for line in lines)])

    def _passes(self) -> dict[str | None, board.Pass]:
        """Those of this run; others have screens of their own. A job's process ends a little before
        Snakemake says that the job has."""
        told = self.known | {log: each for log, each in passes().items() if each.total}
        logs = {job.log for job in self.run.running}
        self.known = {log: each for log, each in told.items() if log in logs}
        return self.known

    def end(self) -> None:
        super().end()
        self.terminal.give_back()
        if not self.interrupted:  # of a process that ended before its last words
            for line in self.held:
                self.terminal.say(line)
        for words, colour in self.last_words():
            self.terminal.say(words, colour if self.colour else UNCOLOURED)


def choose(run: Run, nocolor: bool) -> Display:
    """How this process shows a run."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return Plain(run)
    return Live(run, colour=not (nocolor or os.environ.get("NO_COLOR")))


def _cells(line: str) -> int:
    return cell_len(Text.from_ansi(line).plain)


def _time(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _jobs(count: int) -> str:
    return f"{count} job" + "s" * (count != 1)
