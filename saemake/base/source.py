"""The git commit of this saemake, and whether its files have changed since."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What git calls a file that it does not know. A user's own config or notes change no result.
UNKNOWN, CODE = "?? ", ("saemake/", "workflow/", "Snakefile")


def describe() -> dict[str, str | bool] | None:
    """The commit of the checkout that the package runs from, and whether its tree is clean: no file
    of the commit is changed, and none is added to the code. None if the package does not run from a
    checkout."""
    if not (ROOT / ".git").exists():
        return None
    commit, status = (
        _git("rev-parse", "HEAD"),
        _git("status", "--porcelain", "--untracked-files=all"),
    )
    if commit is None or status is None:
        return None
    changed = [
        line
        for line in status.splitlines()
        if not line.startswith(UNKNOWN) or line.removeprefix(UNKNOWN).startswith(CODE)
    ]
    return {"commit": commit, "clean": not changed}


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
