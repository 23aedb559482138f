"""Names of the places in a language model that SAEs read, and that transcoders write.

`L12` is the residual stream after block 12, `L12.attn_out` another site of that block, and
`L12.mlp_in-mlp_out` what a transcoder reads and what it writes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from saemake.base.errors import SaemakeError, nearest

Site = Literal["resid_pre", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post"]
# In the order in which a block computes them.
SITES: tuple[Site, ...] = get_args(Site)
RESID_POST: Site = "resid_post"
# The residual stream itself: with zeros there, the LM knows nothing of its text.
RESIDUAL = ("resid_pre", "resid_mid", RESID_POST)
# What a path may have for a hookpoint, whether its sites exist or not.
PATTERN = r"L(?:0|[1-9][0-9]{0,8})(?:\.[a-z_]+(?:-[a-z_]+)?)?"
_PARTS = re.compile(r"L(0|[1-9][0-9]{0,8})(?:\.([^./]*))?")


def is_named(name: str) -> bool:
    """Whether a part of a path is meant as a hookpoint, right or misspelt."""
    return _PARTS.fullmatch(name) is not None


@dataclass(frozen=True)
class Hookpoint:
    """A place in a language model: what an SAE reads and reconstructs, site `read` of block
    `layer`. With `write`, what a transcoder reads, and the later site of that block that it
    predicts. `str` is its name in paths.

    Raises SaemakeError where the sites are none, or in no order.
    """

    layer: int
    read: Site = RESID_POST
    write: Site | None = None

    def __post_init__(self) -> None:
        for name in (self.read, *([] if self.write is None else [self.write])):
            if name not in SITES:
                raise SaemakeError(f"no site '{name}' in a block; {nearest(name, SITES)}")
        if self.write == self.read:
            raise SaemakeError(
                f"'{self.read}-{self.write}' writes the site that it reads; an SAE of that site is"
                f" '{self.read}'"
            )
        if self.write is not None and SITES.index(self.write) < SITES.index(self.read):
            raise SaemakeError(
                f"'{self.read}-{self.write}' writes a site before the one that it reads; did you"
                f" mean '{self.write}-{self.read}'?"
            )

    @classmethod
    def at(cls, layer: int, site: str) -> "Hookpoint":
        """The hookpoint of a block and the name of a site, or `{read}-{write}`. Raises SaemakeError
        where there is no such site."""
        read, dash, write = site.partition("-")
        return cls(layer, read, write if dash else None)  # type: ignore[arg-type]

    @classmethod
    def named(cls, name: str) -> "Hookpoint":
        """The hookpoint of a name in paths. Raises SaemakeError, with the right name, where the
        name is none."""
        match = _PARTS.fullmatch(name)
        if not match:
            raise SaemakeError(
                f"'{name}' is not a layer; layers are L0, L1, ..., and their other sites"
                " L0.attn_out, L0.mlp_in-mlp_out, ..."
            )
        layer, site = int(match[1]), match[2]
        if site is None:
            return cls(layer)
        found = cls.at(layer, site)
        if str(found) != name:
            raise SaemakeError(f"'{name}': did you mean '{found}'? {RESID_POST} is not spelt")
        return found

    @property
    def site(self) -> str:
        """`attn_out`, or of a transcoder `mlp_in-mlp_out`."""
        return self.read if self.write is None else f"{self.read}-{self.write}"

    @property
    def source(self) -> "Hookpoint":
        """The single site that is read."""
        return Hookpoint(self.layer, self.read)

    @property
    def target(self) -> "Hookpoint":
        """The single site that is reconstructed: the one that is read, or that a transcoder
        writes."""
        return Hookpoint(self.layer, self.write or self.read)

    @property
    def is_transcoder(self) -> bool:
        """Whether it writes another site than it reads."""
        return self.write is not None

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts hookpoints as the LM reaches them: by what they write, then by what they read."""
        written = self.write or self.read
        return self.layer, SITES.index(written), SITES.index(self.read)

    @property
    def described(self) -> str:
        """In words, for readers: `residual stream after block 3`."""
        written = f"{_WORDS[self.target.read]} block {self.layer}"
        return f"{written}, predicted from its {self.read}" if self.is_transcoder else written

    @property
    def titled(self) -> str:
        """In words, for titles: `layer 3`, `layer 3, attn_out`."""
        return f"layer {self.layer}" + ("" if self.site == RESID_POST else f", {self.site}")

    def __str__(self) -> str:
        return f"L{self.layer}" + ("" if self.site == RESID_POST else f".{self.site}")


def deepest(hookpoints: Iterable[Hookpoint]) -> Hookpoint:
    """The one that the LM reaches last."""
    return max(hookpoints, key=lambda each: each.order)


_WORDS: dict[str, str] = {
    "resid_pre": "residual stream before",
    "attn_out": "attention output of",
    "resid_mid": "residual stream between attention and MLP of",
    "mlp_in": "MLP input of",
    "mlp_out": "MLP output of",
    "resid_post": "residual stream after",
}
