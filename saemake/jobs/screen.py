"""What Snakemake shows of a failed job: one line, beside the job's own words on what is wrong. Our
screen says the words of the first failure in its last line, and before only if the run goes on.

Without this a failed job is fourteen rows: the exception, the command, all inputs and outputs. All
of it stays in Snakemake's own log file.
"""

import logging
import os
import re
from collections.abc import Iterator

from saemake.base import interrupts, progress
from saemake.jobs import submitted
from saemake.jobs.runs import RESTART, event_of, fault_of

# As Snakemake names its logger, its handler for the screen, and its events.
SNAKEMAKE, SCREEN = "snakemake.logging", "DefaultStreamHandler"
ON_REQUEST = "Terminating processes on user request"
NOT_ALL = "At least one job did not complete successfully"
REMOVED = "Removing output files of failed job"
# What the executor for Slurm says of each run, and of what nobody asks for.
NOISE = re.compile(
    r"SLURM run ID|MinJobAge|Cleaning up SLURM log files|Exception in run_job for rule"
    r"|No SLURM account given|No account was given|Unable to guess SLURM account"
)
# A job that ends with status 1 has said why. One that ends otherwise had no time to.
ENDED = re.compile(r"died with <Signals\.(?P<signal>\w+)|exit status (?P<status>\d+)")
HAS_SAID = "1"


class ShortFailures(logging.Filter):
    """Of one handler: takes what is said of failed script jobs, and says it shorter. After an
    interrupt there is nothing more to say."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self.handler = handler
        self.interrupted = False
        self.failed = False
        # The jobs that run, by their numbers, and the words of the first failure while unsaid.
        self.running: set[int] = set()
        self.unsaid: str | None = None
        # Jobs that Slurm did not take: it is said once, however often they are tried.
        self.refused: set[int] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        words, event = str(record.msg), event_of(record)
        self.interrupted |= words.startswith(ON_REQUEST)
        self._follow(record)
        if event == "JOB_ERROR" and not getattr(record, "shellcmd", None):
            if not self.interrupted:
                self._say_failed(record)
            self.failed = True
            return False
        if event == "ERROR" and self.interrupted and NOT_ALL in words:
            if not self.failed:
                self._say("saemake: interrupted; the same command goes on")
            return False
        if event == "ERROR" and "CalledProcessError in file" in words:
            self._say_how_it_ended(words)
            return False
        if restarted := RESTART.match(words):
            number = int(restarted["job"])
            if number not in self.refused:
                self._say(f"saemake: job {number} is tried again")
            return False
        return not words.startswith(REMOVED) and NOISE.match(words) is None

    def _follow(self, record: logging.LogRecord) -> None:
        """Keep count of the running jobs. If the run goes on after a failure, say its cause."""
        event = event_of(record)
        if event == "JOB_INFO":
            self.running.add(getattr(record, "jobid", -1))
            self._say_cause(self.unsaid)
        elif event == "JOB_FINISHED":
            self.running.discard(getattr(record, "job_id", -1))
        elif event == "JOB_ERROR":
            self.running.discard(getattr(record, "jobid", -1))

    def _say_failed(self, record: logging.LogRecord) -> None:
        logs, number = getattr(record, "log", None) or [], int(getattr(record, "jobid", -1))
        if refusal := submitted.refusal(record):
            if number not in self.refused:
                self.refused.add(number)
                self._say(f"saemake: job {number}: {refusal}")
            return
        # Without our screen the job has said it itself.
        cause = fault_of(next(iter(logs), None)) if os.environ.get(progress.SHOWN) else None
        where = f"its log is {', '.join(logs)}"
        if cause and interrupts.STOPPED in cause:
            self._say(f"saemake: job {number}: {cause}; {where}")
            return
        cause = cause or submitted.end(record)
        if self.running or self.failed:
            self._say_cause(cause)
        else:
            self.unsaid = cause
        self._say(f"saemake: job {number} failed; {where}")

    def _say_cause(self, cause: str | None) -> None:
        self.unsaid = None
        if cause:
            self._say(f"saemake: {cause}")

    def _say_how_it_ended(self, words: str) -> None:
        ended = ENDED.search(words)
        signal, status = (ended["signal"], ended["status"]) if ended else (None, None)
        # The screen may learn of the job's end before it learns of the interrupt.
        self.interrupted |= signal == "SIGINT"
        if self.interrupted or status == HAS_SAID:
            return
        how = f"was ended by {signal}" if signal else f"ended with status {status}"
        if signal == "SIGKILL":
            how += ", as the kernel does where memory runs out"
        self._say(f"saemake: a job's process {how}")

    def _say(self, words: str) -> None:
        record = {"levelno": logging.ERROR, "levelname": "ERROR", "msg": words}
        self.handler.handle(logging.makeLogRecord(record))


def shorten_failures() -> None:
    """Say failures in one line each from now on, in this process."""
    for handler in _screens():
        if not any(isinstance(each, ShortFailures) for each in handler.filters):
            handler.addFilter(ShortFailures(handler))


def _screens() -> Iterator[logging.Handler]:
    for handler in logging.getLogger(SNAKEMAKE).handlers:
        if handler.name == SCREEN:
            yield handler
