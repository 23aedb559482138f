"""The exception whose text a user sees, and the search for the nearest valid name."""

import difflib
from collections.abc import Iterable


class SaemakeError(Exception):
    """Something the user can fix. Its text is one line: what is wrong, where, and what to do."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or the name of its type if the text is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that suggests the known word nearest to `name`. If none is near, it lists the first
    known words."""
    words = sorted(known)
    completions = [word for word in words if name and word.startswith(name)]
    close = completions or difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    if not words:
        return "none are configured"
    return "known: " + ", ".join(words[:12]) + (", ..." if len(words) > 12 else "")


def build_again(path: object) -> str:
    """A clause that says how to repair a damaged file under results/ or published/: run its job
    again, which links the undamaged files from the store."""
    return f"delete it and build it again: snakemake {path} (with the options of your run)"
