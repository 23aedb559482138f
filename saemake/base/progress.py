"""Progress bars. They refresh often on a terminal and rarely in a log file."""

import sys

from tqdm import tqdm

TERMINAL_INTERVAL_S = 0.5
FILE_INTERVAL_S = 10.0


def bar(total: int, label: str, unit: str, initial: int = 0) -> tqdm:
    """A bar on stderr over `total` units; `initial` of them are already done."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        desc=label,
        unit=unit,
        unit_scale=True,
        file=sys.stderr,
        mininterval=TERMINAL_INTERVAL_S if terminal else FILE_INTERVAL_S,
        dynamic_ncols=terminal,
    )


def say(words: str) -> None:
    """Say a line on stderr while bars are shown, from any thread."""
    tqdm.write(f"saemake: {words}", file=sys.stderr)
    sys.stderr.flush()
