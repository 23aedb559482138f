"""Which positions are left out, as the config says it: part of each SAE's recipe."""

from typing import Annotated, Literal

from pydantic import Field

from saemake.base.sections import Closed, Flag, Number


class Drop(Closed):
    """Positions that are left out: by their token's id (`bos`; `special`, any special token), or
    because their activation's norm exceeds this multiple of the median of its LM batch."""

    bos: Flag = False
    special: Flag = False
    norm_over_median: Annotated[Number, Field(gt=1)] | None = None

    @property
    def kinds(self) -> list[Literal["bos", "special"]]:
        """The kinds of tokens that are left out by their ids."""
        bos: list[Literal["bos", "special"]] = ["bos"] if self.bos else []
        return bos + (["special"] if self.special else [])

    @property
    def on(self) -> bool:
        """Whether anything is left out."""
        return bool(self.kinds) or self.norm_over_median is not None

    @property
    def said(self) -> str:
        """What is left out, in the config's words; empty for nothing."""
        norm = [] if self.norm_over_median is None else [f"norms over {self.norm_over_median:g} x"]
        return ", ".join([*self.kinds, *(f"{words} the median" for words in norm)])

    @property
    def clause(self) -> str:
        """The same after the words for what is done: `, without ...`; empty for nothing."""
        return f", without {self.said}" if self.on else ""


# Not in a recipe where nothing is dropped: what was made before there was such a
# key keeps its hash.
RecordedDrop = Annotated[Drop, Field(exclude_if=lambda drop: not drop.on)]


class TrainingDrop(Drop):
    """The same for training. How many positions `norm_over_median` leaves out is known only while
    training: so much more text is tokenised, as a share."""

    reserve: Annotated[Number, Field(ge=0, le=1)] = 0.05
