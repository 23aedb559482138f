"""The rows of stability.json: how the latents of an SAE recur in another seed of it."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, TypeAdapter

from saemake.base.errors import SaemakeError, first_line
from saemake.evaluation.pairs import Method
from saemake.metrics.rows import Subject


class Pair(Subject):
    """Two SAEs that differ in their seed alone: what they have in common, and `seeds`, of the first
    and the second. Shares are of the latents of the first."""

    seeds: list[int] = Field(min_length=2, max_length=2)
    l0: float | None = Field(description="mean of both; null where no evaluation has it")
    method: Method = Field(description="how latents were matched")
    shared: float = Field(description="matched over 0.7 by decoder, and by encoder directions")
    shared_by_decoder: float = Field(description="matched over 0.7 by decoder directions")
    shared_by_encoder: float = Field(description="matched over 0.7 by encoder directions")
    same_partner: float = Field(description="for which both matchings choose the same partner")
    decoder_mean_cosine: float = Field(description="of all matched decoder directions")
    encoder_mean_cosine: float = Field(description="of all matched encoder directions")
    live_latents: int | None = Field(
        description="latents of the first that fire on the evaluation's text; null if none says it"
    )
    live_shared: float | None = Field(description="`shared`, of these latents")


def content(pairs: Sequence[Pair]) -> bytes:
    """Pairs as the bytes of a file, without fields that are not set."""
    plain = [pair.model_dump(mode="json", exclude_unset=True) for pair in pairs]
    return (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode()


def read_file(path: Path) -> list[Pair]:
    """The pairs of a file. Raises SaemakeError if it is damaged."""
    try:
        return TypeAdapter(list[Pair]).validate_json(path.read_bytes())
    except ValueError as error:
        way_out = "delete it and run the same command again"
        raise SaemakeError(f"{path}: cannot be read ({first_line(error)}); {way_out}") from None
