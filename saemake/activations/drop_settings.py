"""The config's `drop` section: which positions are left out. It is part of each SAE's recipe."""

from typing import Annotated, Literal

from pydantic import Field

from saemake.base.sections import Closed, Flag, Number


class Drop(Closed):
    """Positions that are left out because of their token (`bos`, or `special` for any special
    token), or because their activation's norm exceeds `norm_over_median` times the median norm of
    the LM batch."""

    bos: Flag = False
    special: Flag = False
    norm_over_median: Annotated[Number, Field(gt=1)] | None = None

    @property
    def kinds(self) -> list[Literal["bos", "special"]]:
        """The kinds of tokens that are left out because of their ids."""
        bos: list[Literal["bos", "special"]] = ["bos"] if self.bos else []
        return bos + (["special"] if self.special else [])

    @property
    def on(self) -> bool:
        """Whether any position can be left out."""
        return bool(self.kinds) or self.norm_over_median is not None

    @property
    def in_words(self) -> str:
        """What is left out, in the config's words; empty if nothing is."""
        norm = [] if self.norm_over_median is None else [f"norms over {self.norm_over_median:g} x"]
        return ", ".join([*self.kinds, *(f"{words} the median" for words in norm)])

    @property
    def clause(self) -> str:
        """The same as a clause, `, without ...`; empty if nothing is left out."""
        return f", without {self.in_words}" if self.on else ""


# A recipe that drops nothing has no such field, so that recipes older than the field keep their
# hash.
RecordedDrop = Annotated[Drop, Field(exclude_if=lambda drop: not drop.on)]


class TrainingDrop(Drop):
    """The same for training. Only training shows how many positions `norm_over_median` leaves out,
    so that fraction `reserve` of more text is tokenised."""

    reserve: Annotated[Number, Field(ge=0, le=1)] = 0.05
