"""Tokens and numbers as a page writes them. Nothing is escaped here."""

import unicodedata

SHOWN = {"\n": "↵", "\r": "␍", "\t": "⇥"}
# They change the direction of what follows.
BIDIRECTIONAL = {
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
    "\u200e",
    "\u200f",
}


def in_text(token: str) -> str:
    """A token in its context: line ends and control characters are seen, and change nothing
    else."""
    return "".join(map(_character, token))


def _character(character: str) -> str:
    if character in SHOWN:
        return SHOWN[character]
    if character in BIDIRECTIONAL or unicodedata.category(character) in ("Cc", "Cs"):
        return f"\\u{ord(character):04x}"
    return character


def in_list(token: str) -> str:
    """A token by itself: spaces at its ends are seen too."""
    shown = in_text(token)
    inner = shown.strip(" ")
    before, after = len(shown) - len(shown.lstrip(" ")), len(shown) - len(shown.rstrip(" "))
    return "␣" * len(shown) if not inner else "␣" * before + inner + "␣" * after


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.3g}".replace("-", "\u2212")


def signed(value: float) -> str:
    """Two decimals, with a sign."""
    return f"{value:+.2f}".replace("-", "\u2212")


def percent(share: float) -> str:
    """A share of 1, with two digits that count."""
    return f"{100 * share:.2g} %" if abs(share) < 0.995 else f"{100 * share:.0f} %"
