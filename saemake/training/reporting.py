"""wandb and TensorBoard: get the rows of training.csv while a pass trains.

Each logger is a process of its own (saemake/training/loggers.py), and the pass never waits for it
while it trains. So nothing that a logger does can change the SAEs, slow a step by more than the
writing of a line, or end the pass. The first fault of a logger is said in one line.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from saemake.base import progress, source
from saemake.base.errors import first_line
from saemake.config.sections import Logging
from saemake.recipes.kinds import SaeRecipe
from saemake.training.loggers import FOLDER, TENSORBOARD, WANDB, Run

log = logging.getLogger(__name__)

# How long a pass waits at its end until all is uploaded; and where it is interrupted.
END_S, INTERRUPTED_S = 60.0, 5.0
# SAELens's names of training.csv's columns.
NAMES = {
    "tokens": "details/n_training_samples",
    "learning_rate": "details/current_learning_rate",
    "loss": "losses/overall_loss",
    "l0": "metrics/l0",
    "frac_variance_explained": "metrics/explained_variance",
    "dead": "sparsity/dead_features",
}


def figures(row: Mapping[str, float]) -> dict[str, float]:
    """A row of training.csv under SAELens's names, without its step. Between `loss` and `l0` are
    the parts of the loss; other columns without a name here are details."""
    columns = list(row)
    parts = columns[columns.index("loss") + 1 : columns.index("l0")]
    return {
        NAMES.get(column, f"losses/{column}" if column in parts else f"details/{column}"): value
        for column, value in row.items()
        if column != "step"
    }


def _id(recipe_hash: str) -> str:
    """The id of an SAE's run. So a pass that resumes goes on with its runs."""
    return recipe_hash[:16]


def run_of(name: str, recipe: SaeRecipe, sweep: str | None) -> Run:
    """The run of an SAE, grouped with those of its sweep."""
    return Run(
        id=_id(recipe.hash),
        name=name,
        group=sweep,
        tags=[recipe.architecture, str(recipe.hookpoint)],
        config={"name": name, "recipe_hash": recipe.hash, **recipe.model_dump(mode="json")},
    )


class Reports:
    """The loggers of one pass that the config asks for; none by default."""

    def __init__(self, report: Logging, label: str, runs: Sequence[Run]) -> None:
        self.statuses = {run.id: 1 for run in runs}
        asked: dict[str, dict[str, Any]] = {}
        if report.wandb is not None:
            asked[WANDB] = report.wandb.model_dump()
        if report.tensorboard:
            own = report.tensorboard is not True
            asked[TENSORBOARD] = {
                "folder": report.tensorboard if own else f"{FOLDER}/{TENSORBOARD}"
            }
        self.loggers = [_Logger(kind, label, runs, asked[kind]) for kind in asked]

    def row(self, recipe_hash: str, row: Mapping[str, float]) -> None:
        """Log a row of training.csv of an SAE, by its recipe's hash. Does not wait."""
        for logger in self.loggers:
            logger.send({"run": _id(recipe_hash), "step": row["step"], "figures": row})

    def trained(self, recipe_hashes: Iterable[str]) -> None:
        """These SAEs are finished. The runs of all others count as failed."""
        self.statuses.update({_id(recipe_hash): 0 for recipe_hash in recipe_hashes})

    def end(self, within_s: float) -> None:
        """Wait for what is sent already, for so long at most."""
        for logger in self.loggers:
            logger.send({"end": self.statuses})
            logger.send(None)
        for logger in self.loggers:
            logger.end(within_s)


@contextlib.contextmanager
def reported(report: Logging, label: str, runs: Sequence[Run]) -> Iterator[Reports]:
    """Loggers for a block that trains these runs; they end with it."""
    reports, within_s = Reports(report, label, runs), INTERRUPTED_S
    try:
        yield reports
        within_s = END_S
    finally:
        reports.end(within_s)


class _Logger:
    """The process of one logger, and two threads: one writes to it, since a pipe that nobody
    empties would block; one reads its answers."""

    def __init__(
        self, kind: str, label: str, runs: Sequence[Run], settings: dict[str, Any]
    ) -> None:
        self.kind, self.label = kind, label
        self.faulty = False
        self.waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.process: subprocess.Popen[str] | None = None
        try:
            self.process = _start(kind)
        except OSError as error:
            self._fault(first_line(error))
            return
        self.send({"runs": [asdict(run) for run in runs], "settings": settings})
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._write, self._read)]
        for thread in self.threads:
            thread.start()

    def send(self, message: dict[str, Any] | None) -> None:
        """Have a message written, in its turn; None is the last."""
        if not self.faulty:
            self.waiting.put(message)

    def end(self, within_s: float) -> None:
        """Wait for the end of the process, but not for longer than that."""
        if self.process is None:
            return
        self.waiting.put(None)  # also where it has failed: the thread ends
        try:
            status = self.process.wait(within_s)
            self.threads[1].join(1)  # it may still read a fault
            if status:
                self._fault(f"its process ended with status {status}")
        except subprocess.TimeoutExpired:
            self._fault(f"it did not end within {within_s:.0f} s and was stopped")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _write(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            while (message := self.waiting.get()) is not None:
                if "figures" in message:
                    message = {**message, "figures": figures(message["figures"])}
                print(json.dumps(message), file=self.process.stdin, flush=True)
        except OSError:  # the process has ended, and `end` says how
            pass
        except Exception as error:
            self._fault(f"{type(error).__name__}: {first_line(error)}")
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            if "fault" in answer:
                self._fault(answer["fault"])
            else:
                log.info("%s: %s", self.kind, answer["note"])

    def _fault(self, words: str) -> None:
        """Said once; nothing more is sent."""
        if self.faulty:
            return
        self.faulty = True
        line = f"{self.label}: {self.kind}: {words}; training is not affected (logging.{self.kind})"
        log.warning("%s", line)
        progress.say(line)


def _start(kind: str) -> "subprocess.Popen[str]":
    """In a session of its own, so that Ctrl-C does not reach it, and it ends with its children."""
    project = source.ROOT
    paths = [str(project), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "saemake.training.loggers", kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
