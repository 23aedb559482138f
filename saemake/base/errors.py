"""The one exception that a user sees, and the search for the name that was meant."""

import difflib
from collections.abc import Iterable


class SaemakeError(Exception):
    """Something the user can mend. Its text is one line: the thing, the place and the way out."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names the known word nearest to `name`, or lists the few known ones."""
    words = sorted(known)
    begin = [word for word in words if name and word.startswith(name)]
    close = begin or difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    if not words:
        return "none are configured"
    return "known: " + ", ".join(words[:12]) + (", ..." if len(words) > 12 else "")


def build_again(path: object) -> str:
    """A clause on how a damaged file under results/ or published/ is mended: its job runs again,
    and takes from the store what is whole there."""
    return f"delete it and build it again: snakemake {path} (with the options of your run)"
