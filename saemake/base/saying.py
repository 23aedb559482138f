"""Lines of ours on the screen, between Snakemake's."""

import sys


def say(words: str) -> None:
    """Say a line on stderr, at once."""
    print(f"saemake: {words}", file=sys.stderr, flush=True)
