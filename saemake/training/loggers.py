"""The process of a logger: passes what it reads on to wandb or TensorBoard.

`python -m saemake.training.loggers wandb` reads lines of JSON: first the runs and the settings
(`runs`, `settings`), then a line for each row of training.csv (`run`, `step`, `figures`), and last
each run's exit status by its id (`end`). It writes lines of JSON on stdout: `note`, for the job's
log, or `fault`, after which nothing more is logged. saemake/training/reporting.py starts it.
"""

import contextlib
import json
import os
import queue
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from saemake.base.errors import first_line

WANDB, TENSORBOARD = "wandb", "tensorboard"
FOLDER = "logs"  # wandb's files are in logs/wandb/
NICENESS = 10
# How long the process may go on when nothing more is to come.
END_WITHIN_S = 90
# Access keys of wandb, old and new: never shown.
KEYS = re.compile(r"wandb_v\d+_\w+|\b[0-9a-f]{40}\b")


@dataclass(frozen=True)
class Run:
    """One SAE. `id` is the same whenever the SAE is trained by this recipe. `group` is its
    sweep."""

    id: str
    name: str
    group: str | None
    tags: list[str]
    config: dict[str, Any]


class Logger(Protocol):
    """Where the figures of a pass go. Methods may raise whatever they like."""

    def log(self, run: str, step: int, figures: dict[str, float]) -> None:
        """Figures of one SAE, by its run's id, after a training step."""

    def end(self, statuses: dict[str, int]) -> None:
        """Nothing more comes. `statuses` is 0 for each SAE that is trained, else 1."""


class Wandb:
    """One run an SAE. A run that wandb has already goes on, from the step after its last."""

    def __init__(self, runs: list[Run], settings: dict[str, Any], note: Callable[[str], None]):
        import wandb

        if not hasattr(wandb, "init"):  # a folder of this name, which wandb leaves where it runs
            raise ModuleNotFoundError("No module named 'wandb'", name="wandb")
        Path(FOLDER).mkdir(exist_ok=True)
        self.runs = {}
        for run in runs:
            opened = wandb.init(
                **{key: settings[key] for key in ("project", "entity", "mode")},
                id=run.id,
                name=run.name,
                group=run.group,
                tags=[*run.tags, *settings["tags"]],
                config=run.config,
                dir=FOLDER,
                resume="allow",
                reinit="create_new",
                # Only what is logged, and the machine's load: not the console, the code, the
                # command, the user, the host, nor git's remote, whose address may have a token.
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    host="",
                    username="",
                    program="saemake",
                    disable_git=True,
                    disable_code=True,
                    save_code=False,
                    x_disable_meta=True,
                    x_save_requirements=False,
                    x_stats_pid=os.getppid(),
                ),
            )
            self.runs[run.id] = opened
            note(f"run {run.id} is {run.name}, in {opened.dir if opened.offline else opened.url}")

    def log(self, run: str, step: int, figures: dict[str, float]) -> None:
        opened = self.runs[run]
        if step >= opened.starting_step:  # wandb has the earlier ones
            opened.log(figures, step=step)

    def end(self, statuses: dict[str, int]) -> None:
        for run, opened in self.runs.items():
            opened.finish(exit_code=statuses[run])


class TensorBoard:
    """One folder an SAE. What an earlier training left there is replaced."""

    def __init__(self, runs: list[Run], settings: dict[str, Any], note: Callable[[str], None]):
        import tensorboard  # noqa: F401  # absent: said by its own name, not as torch says it
        from torch.utils.tensorboard import SummaryWriter

        self.writers = {}
        for run in runs:
            folder = Path(settings["folder"], run.name)
            self.writers[run.id] = SummaryWriter(folder, purge_step=0)
            config = json.dumps(run.config, indent=1, sort_keys=True)
            self.writers[run.id].add_text("config", f"```\n{config}\n```", 0)
            note(f"{run.name} is in {folder}")

    def log(self, run: str, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writers[run].add_scalar(name, value, step)
        self.writers[run].flush()

    def end(self, statuses: dict[str, int]) -> None:
        for writer in self.writers.values():
            writer.close()


LOGGERS: dict[str, Callable[[list[Run], dict[str, Any], Callable[[str], None]], Logger]] = {
    WANDB: Wandb,
    TENSORBOARD: TensorBoard,
}


def main(kind: str, lines: TextIO, answers: TextIO) -> None:
    """Read `lines` to their end, and log them."""

    def answer(key: str, words: str) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            print(json.dumps({key: KEYS.sub("***", words)}), file=answers, flush=True)

    messages, logger = _messages(lines), None
    try:
        first = next(messages)
        runs = [Run(**run) for run in first["runs"]]
        statuses = {run.id: 1 for run in runs}  # of a training that stops without a word
        logger = LOGGERS[kind](runs, first["settings"], lambda words: answer("note", words))
        for message in messages:
            if "end" in message:
                statuses = message["end"]
            else:
                logger.log(message["run"], message["step"], message["figures"])
        logger.end(statuses)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing != kind:
            answer("fault", f"its package cannot be imported: {first_line(error)}")
        else:
            answer("fault", f"the package {kind} is not installed: pip install {kind}")
    except Exception as error:
        answer("fault", f"{type(error).__name__}: {first_line(error)}")
        _kill_after(END_WITHIN_S)
        if logger is not None:
            with contextlib.suppress(Exception):
                logger.end(statuses)


def _messages(lines: TextIO) -> Iterator[dict[str, Any]]:
    """The lines, read by a thread: so their end is seen whatever the logger waits for, and the
    process does not outlive its parent by long."""
    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in lines:
            waiting.put(line)
        waiting.put(None)
        _kill_after(END_WITHIN_S)

    threading.Thread(target=read, daemon=True).start()
    while (line := waiting.get()) is not None:
        yield json.loads(line)


def _kill_after(seconds: float) -> None:
    """End the process and its children (wandb has one) where they do not end by themselves."""
    timer = threading.Timer(seconds, lambda: os.killpg(os.getpgid(0), signal.SIGKILL))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    os.nice(NICENESS)
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):  # what the packages say of themselves
        os.dup2(nowhere, stream.fileno())
    main(sys.argv[1], sys.stdin, channel)
