"""features.parquet: one row for each latent that a page shows, and what is said of the whole SAE in
the file's metadata, under `saemake`."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from saemake.base.errors import SaemakeError, build_again, first_line
from saemake.base.sections import Closed

KEY = b"saemake"
_TOKENS = pa.list_(pa.struct([("id", pa.int64()), ("token", pa.string()), ("logit", pa.float32())]))
SCHEMA = pa.schema(
    [
        ("latent", pa.int64()),
        # Whether the config asks for it.
        ("asked", pa.bool_()),
        # The positions where it is not 0, and their share of all that are used.
        ("fired", pa.int64()),
        ("density", pa.float64()),
        # Over the positions where it fires; null where it never does.
        ("largest", pa.float32()),
        ("mean", pa.float32()),
        # How many activations above 0 are in each of equal bins between 0 and the largest.
        ("histogram", pa.list_(pa.int64())),
        # The logit lens.
        ("promoted", _TOKENS),
        ("suppressed", _TOKENS),
        ("nearest", pa.list_(pa.struct([("latent", pa.int64()), ("cosine", pa.float32())]))),
        # The tokens around the largest activation of a context: `first` is the position of the
        # first of them. Positions that are left out have no activation.
        (
            "contexts",
            pa.list_(
                pa.struct(
                    [
                        ("context", pa.int64()),
                        ("position", pa.int64()),
                        ("activation", pa.float32()),
                        ("first", pa.int64()),
                        ("tokens", pa.list_(pa.string())),
                        ("activations", pa.list_(pa.float32())),
                    ]
                )
            ),
        ),
    ]
)


class Summary(Closed):
    """What a page says of the whole SAE. `densities` counts the latents that fired by the decade of
    their density: the first from 10^`lowest_decade` to ten times that, and so on."""

    latents: int
    dead: int
    l0: float
    contexts: int
    tokens: int
    positions: int
    dropped: str
    held_out: bool
    sample: int
    lowest_decade: int
    densities: list[int]
    norm: str | None


def content(rows: list[dict[str, Any]], summary: Summary) -> bytes:
    """The file's bytes: the same for the same rows."""
    schema = SCHEMA.with_metadata({KEY: summary.model_dump_json().encode()})
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), written)
    return written.getvalue()


def read(path: Path) -> tuple[list[dict[str, Any]], Summary]:
    """The rows and the summary in a file. Raises SaemakeError if it is damaged."""
    try:
        table = pq.read_table(path)
        summary = Summary.model_validate(json.loads(table.schema.metadata[KEY]))
        return table.to_pylist(), summary
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise SaemakeError(
            f"{path}: cannot be read ({first_line(error)}); {build_again(path)}"
        ) from None
