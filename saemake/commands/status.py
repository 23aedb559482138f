"""What is running in this folder: each run of snakemake, and how far its jobs are.

Shows once what the screen of those runs shows. Exit status 0, also where nothing is running.
"""

import argparse
import os
import shutil
import sys

from saemake.config.config import Config
from saemake.jobs import board, runs

# Of a file or a pipe.
WIDTH = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(config: Config, options: argparse.Namespace) -> int:
    for line in lines(_look()):
        print(line)
    return 0


def lines(look: board.Look) -> list[str]:
    """Each run that lives, with its process, and how far its jobs are."""
    runs.clean()
    shown, passes = runs.shown(), runs.passes()
    if not shown and not passes:
        return ["nothing is running in this folder"]
    return board.lines(shown, passes, look, processes=True)


def _look() -> board.Look:
    columns = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    encoding = (sys.stdout.encoding or "").lower()
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return board.Look(max(columns, board.LEAST_WIDTH), colour, encoding.startswith("utf"))
