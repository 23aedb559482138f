"""How many products the largest cosines among directions take, and how directions are matched;
known without torch."""

from typing import Literal

# Directions that are multiplied with the others at once.
ROWS_AT_ONCE = 512

# The matching with the largest sum of cosines; or the nearest pair again and again.
Method = Literal["optimal", "greedy"]


def pairs_multiplied(directions: int) -> int:
    """How many products of two directions the largest among so many take: a block of rows with
    itself and with what follows."""
    starts = range(0, directions, ROWS_AT_ONCE)
    return sum(min(ROWS_AT_ONCE, directions - start) * (directions - start) for start in starts)
