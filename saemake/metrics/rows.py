"""The types of the rows of metrics.json; docs/metrics.schema.json is generated from them.

Every metrics.json is a list of rows, one for each judged thing and way of choosing its latents.
`pandas.json_normalize` makes a table of it.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, TypeAdapter, create_model

from saemake import evaluation
from saemake.base.errors import SaemakeError, first_line
from saemake.base.sections import Closed
from saemake.llm.hookpoint import RESID_POST, Hookpoint


class Subject(Closed):
    """What a row is of."""

    name: str = Field(
        description="its path under results/, a checkpoint's with its step; or under published/"
    )
    model: str = Field(description="a key of the config's models")
    layer: int = Field(description="the block, from 0")
    site: str = Field(
        default=RESID_POST,
        description="what of the block is encoded, or of a transcoder `{read}-{write}`; absent for"
        f" {RESID_POST}, the block's output",
    )
    architecture: str = Field(description="or `identity` or `pca`, the baselines")
    width: str | None = Field(description="the name of the width; null for a baseline")
    latents: int = Field(description="how many latents there are")
    sparsity: str | None = Field(description="`k_80`, `l0_80`, `penalty_0.03`; null for none")
    seed: int | None = Field(
        default=None, description="of the training, where the path names it; else absent"
    )
    steps: int | None = Field(description="of training here; null where none was")
    tokens: int | None = Field(description="trained on here: steps times batch; null where none")

    @property
    def hookpoint(self) -> Hookpoint:
        return Hookpoint.at(self.layer, self.site)


class Circumstances(Closed):
    """What an evaluation was made with."""

    recipe_hash: str = Field(description="of the evaluation's recipe")
    split: str = Field(description="of the text")
    held_out: bool = Field(description="whether nothing in it was trained on")
    documents: int = Field(description="documents, or packed contexts")
    tokens: int = Field(description="in them")
    context_tokens: int = Field(description="longest context")
    special_tokens: dict[str, Any] = Field(
        description="ids of BOS, EOS and padding; `notes`: what stands for a missing one"
    )
    sha256: str = Field(description="of the judged file")
    drop: dict[str, Any] | None = Field(
        default=None,
        description="the positions that keep their own activation and are left out of the figures,"
        " as in the config; absent where there are none",
    )


class SaeBenchCircumstances(Closed):
    """What an evaluation of SAE Bench was made with."""

    recipe_hash: str = Field(description="of the evaluation's recipe")
    sha256: str = Field(description="of the judged file")
    setup: str = Field(description="the recipe hash of what was set up for all SAEs of the layer")
    settings: dict[str, Any] = Field(description="as in the config, with the seed")
    software: dict[str, str] = Field(description="versions of SAE Bench and what it ran with")
    lm: str = Field(description="TransformerLens's name of the LM")
    lm_revision: str | None = Field(description="its commit on the Hub; null of a local one")
    data: dict[str, str | None] = Field(
        description="of each dataset its commit on the Hub; null of a local one"
    )
    caution: str | None = Field(description="what published work warns of; null of nothing")


class Spread(Closed):
    """A figure over several seeds of an evaluation."""

    seeds: int = Field(description="values that are not null")
    mean: float | None = Field(description="of these; null where there is none")
    standard_deviation: float | None = Field(description="of these; null of fewer than two")
    smallest_difference: float | None = Field(
        description="between the means of two SAEs, over as many seeds, that a t test at the 5 %"
        " level tells apart, if both spread as this one"
    )


class Row(Subject):
    """One judged thing. An evaluation's own file has its figures alone."""

    model_config = ConfigDict(title="metrics.json, a row")

    inference: str | None = Field(
        description="`top_k` or `threshold` where an architecture has both; its loader's way first"
    )

    if TYPE_CHECKING:
        warnings: list[str]

    def of(self, evaluation: str) -> Any:
        """An evaluation's figures (its `Figures`); None if it has not judged this row's subject."""
        return getattr(self, evaluation, None)

    def figure(self, evaluation: str, name: str) -> float | None:
        """One figure; None if the row lacks it, or it is not defined."""
        return getattr(self.of(evaluation), name, None)

    def circumstances(self, evaluation: str) -> Circumstances | SaeBenchCircumstances | None:
        """What an evaluation was made with."""
        evaluations = getattr(self, "evaluations", None)
        circumstances: Circumstances | SaeBenchCircumstances | None = getattr(
            evaluations, evaluation, None
        )
        return circumstances


@functools.cache
def row_type() -> type[Row]:
    """The type of a row with its sections: each evaluation's figures are under its name, its
    circumstances are under `evaluations`, and figures over several seeds are under `noise`."""
    known = [evaluation.get(name) for name in evaluation.names()]
    by_sae_bench = [each for each in known if issubclass(each, evaluation.SaeBenchEvaluation)]
    made_with: Any = {
        described.name: (
            (SaeBenchCircumstances if described in by_sae_bench else Circumstances) | None,
            None,
        )
        for described in known
    }
    reseeded: Any = {described.name: (dict[str, Spread] | None, None) for described in by_sae_bench}
    noise: Any = create_model(
        "Noise", __base__=Closed, __doc__="By evaluation, figure.", **reseeded
    )
    judged: Any = {described.name: (described.Figures | None, None) for described in known}
    circumstanced = create_model(
        "Circumstanced", __base__=Closed, __doc__="By evaluation.", **made_with
    )
    told = "what a reader should know, such as a missed target"
    row: type[Row] = create_model(
        "Row",
        __base__=Row,
        __doc__=Row.__doc__,
        **judged,
        warnings=(list[str], Field(description=told)),
        evaluations=(circumstanced, ...),
        noise=(noise | None, None),
    )
    return row


def content(rows: Sequence[Row]) -> bytes:
    """Rows as the bytes of a file, without fields that are not set."""
    plain = [row.model_dump(mode="json", exclude_unset=True) for row in rows]
    return (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode()


def _rows() -> TypeAdapter[list[Row]]:
    rows: Any = list[row_type()]  # type: ignore[misc]
    return TypeAdapter(rows)


def read(file: bytes) -> list[Row]:
    """The rows in the bytes of a file. Raises ValueError if they are not rows."""
    return _rows().validate_json(file)


def read_file(path: Path) -> list[Row]:
    """The rows of a file. Raises SaemakeError if it is damaged."""
    try:
        return read(path.read_bytes())
    except ValueError as error:
        way_out = "delete it and run the same command again"
        raise SaemakeError(f"{path}: cannot be read ({first_line(error)}); {way_out}") from None


def joined(evaluations: Sequence[Sequence[Row]]) -> list[Row]:
    """The rows of several evaluations, merged into one row for each subject and way of choosing
    latents. The order is that of the first appearance."""
    merged: dict[tuple[str, str | None], dict[str, Any]] = {}
    plain = (row.model_dump(exclude_unset=True) for rows in evaluations for row in rows)
    for row in plain:
        first = merged.setdefault((row["name"], row["inference"]), row)
        if first is not row:
            # Each evaluation repeats the warnings about the training.
            row["warnings"] = list(dict.fromkeys([*first["warnings"], *row["warnings"]]))
            for section in ("evaluations", "noise"):
                if section in first or section in row:
                    row[section] = first.get(section, {}) | row.get(section, {})
            first |= row
    return [row_type().model_validate(row) for row in merged.values()]


def schema() -> str:
    """The JSON schema of metrics.json: docs/metrics.schema.json."""
    described = _rows().json_schema()
    described["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    described["title"] = "metrics.json"
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"
