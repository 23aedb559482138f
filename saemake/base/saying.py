"""Lines of ours on the screen, between Snakemake's."""

import os
import sys
from pathlib import Path


def say(words: str) -> None:
    """Say a line on stderr, at once."""
    write(f"saemake: {words}")


def write(line: str) -> None:
    """Write a line to stderr, at once. Where nobody can read it any more (a closed pipe, a terminal
    that is gone), nothing is written from now on."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        # What is left in the old one's buffer would fail again when the process ends.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
