"""The colour and the marker of each architecture, the same in every figure.

The colours are the eight of Okabe and Ito, "Color Universal Design" (2008,
https://jfly.uni-koeln.de/color/), and the wine of Paul Tol's "muted" scheme
(https://sronpersonalpages.nl/~pault/). Readers with any kind of colour blindness can tell these
nine apart. The markers differ too.
"""

from dataclasses import dataclass

from saemake import architectures
from saemake.base.errors import SaemakeError, nearest

COLOURS = (
    "#0072B2",  # blue
    "#D55E00",  # vermillion
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#000000",  # black
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#F0E442",  # yellow
    "#882255",  # wine
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h", "8")
# The places of saemake's own architectures. They stay, whichever others are registered.
OURS = (
    "top_k",
    "batch_top_k",
    "matryoshka_batch_top_k",
    "jump_relu",
    "standard",
    "standard_new",
    "gated",
    "p_anneal",
)


# A variant with a skip connection has the architecture's colour, and a marker so many further on.
SKIP_MARKER = 5


@dataclass(frozen=True)
class Mark:
    """How an architecture is drawn."""

    colour: str
    marker: str


def mark(architecture: str) -> Mark:
    """The mark of a registered architecture, or of its variant with a skip connection. Raises
    SaemakeError if no architecture has that name."""
    all_marks = marks()
    if architecture in all_marks:
        return all_marks[architecture]
    if architecture in architectures.variants():
        plain = all_marks[architectures.base_name(architecture)]
        place = MARKERS.index(plain.marker) + SKIP_MARKER
        return Mark(plain.colour, MARKERS[place % len(MARKERS)])
    raise SaemakeError(f"no architecture '{architecture}'; {nearest(architecture, all_marks)}")


def marks() -> dict[str, Mark]:
    """The marks of all registered architectures. Those in OURS come first, then the others by name;
    each takes the next colour and the next marker. After nine, colours repeat with other
    markers."""
    others = [name for name in architectures.names() if name not in OURS]
    return {
        name: Mark(COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)])
        for place, name in enumerate((*OURS, *others))
    }
