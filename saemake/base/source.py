"""The git commit of this saemake, and whether its files have changed since."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def describe() -> dict[str, str | bool] | None:
    """The commit of the checkout that the package runs from, and whether its tree is clean. None
    if the package does not run from a checkout."""
    if not (ROOT / ".git").exists():
        return None
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    if commit is None or status is None:
        return None
    return {"commit": commit, "clean": not status}


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
