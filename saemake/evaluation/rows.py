"""The rows of metrics.json, typed: what docs/metrics.schema.json says is generated from here.

Every metrics.json is a list of rows, one a judged thing and way of choosing its latents;
`pandas.json_normalize` makes one table of any of them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, TypeAdapter

from saemake.errors import SaemakeError, first_line
from saemake.sections import Closed


class Subject(Closed):
    """What a row is of."""

    name: str = Field(
        description="its path under results/, a checkpoint's with its step; or under published/"
    )
    model: str = Field(description="a key of the config's models")
    layer: int = Field(description="the block whose output is encoded, from 0")
    architecture: str = Field(description="or `identity` or `pca`, the baselines")
    width: str | None = Field(description="the config's name of the width; null for a baseline")
    latents: int = Field(description="how many latents there are")
    sparsity: str | None = Field(description="`k_80`, `l0_80`, `penalty_0.03`; null for none")
    steps: int | None = Field(description="of training here; null where none was")
    tokens: int | None = Field(description="trained on here: steps times batch; null where none")


class DictionaryLearningFigures(Closed):
    """dictionary_learning's `evaluate`, on documents at the training's context; all tokens. Null
    where a figure is not defined: a division by 0, an overflow of the LM's dtype."""

    l2_loss: float | None = Field(description="mean |x - x̂|")
    l1_loss: float | None = Field(
        description="mean sum of |latents|, weighed by the norms of their decoder directions"
    )
    l0: float | None = Field(description="mean number of latents that are not 0")
    frac_variance_explained: float | None = Field(description="1 - var(x - x̂) / var(x)")
    cossim: float | None = Field(description="mean cosine similarity of x̂ and x")
    l2_ratio: float | None = Field(description="mean |x̂| / |x|")
    relative_reconstruction_bias: float | None = Field(
        description="E|x̂|² / E[x̂·x] (arXiv:2404.16014, equation 10)"
    )
    loss_original: float | None = Field(description="the LM's cross-entropy in nats a token")
    loss_reconstructed: float | None = Field(description="the same with x̂ in place of x")
    loss_zero: float | None = Field(description="the same with zeros in place of x")
    frac_recovered: float | None = Field(description="(zero - reconstructed) / (zero - original)")
    frac_alive: float | None = Field(description="share of latents that fired")


class SaeBenchCoreFigures(Closed):
    """SAE Bench's core evaluation, on packed contexts; BOS, EOS and padding count nowhere. Latents
    are weighed by the norms of their decoder directions. Null as above."""

    kl_div_score: float | None = Field(description="1 - with_sae / with_ablation")
    kl_div_with_ablation: float | None = Field(description="KL of the LM to itself without x, nats")
    kl_div_with_sae: float | None = Field(description="KL of the LM to itself with x̂, nats")
    ce_loss_score: float | None = Field(
        description="loss recovered: (ablation - sae) / (ablation - without)"
    )
    ce_loss_with_ablation: float | None = Field(
        description="cross-entropy in nats with zeros for x"
    )
    ce_loss_with_sae: float | None = Field(description="cross-entropy in nats with x̂ for x")
    ce_loss_without_sae: float | None = Field(description="the LM's own cross-entropy in nats")
    explained_variance: float | None = Field(description="1 - E|x - x̂|² / (E|x|² - |E x|²)")
    explained_variance_legacy: float | None = Field(
        description="mean over tokens of 1 - |x - x̂|² / |x - batch mean|²; the published figure"
    )
    mse: float | None = Field(description="mean over tokens and dimensions of (x - x̂)²")
    cossim: float | None = Field(description="mean cosine similarity of x̂ and x")
    l2_norm_in: float | None = Field(description="mean |x|")
    l2_norm_out: float | None = Field(description="mean |x̂|")
    l2_ratio: float | None = Field(description="mean |x̂| / |x|")
    relative_reconstruction_bias: float | None = Field(
        description="mean over batches of E|x̂|² / E[x̂·x]"
    )
    l0: float | None = Field(description="mean number of latents that are not 0")
    l1: float | None = Field(description="mean sum of latents")
    freq_over_1_percent: float | None = Field(description="share of latents that fire at over 1 %")
    freq_over_10_percent: float | None = Field(
        description="share of latents that fire at over 10 %"
    )
    normalized_freq_over_1_percent: float | None = Field(
        description="those latents' share of firings"
    )
    normalized_freq_over_10_percent: float | None = Field(
        description="those latents' share of firings"
    )
    average_max_encoder_cosine_sim: float | None = Field(
        description="mean of each encoder direction's largest cosine with another"
    )
    average_max_decoder_cosine_sim: float | None = Field(
        description="the same of decoder directions"
    )
    frac_alive: float | None = Field(description="share of latents that fired")
    total_tokens_eval_reconstruction: int = Field(description="for KL and cross-entropy")
    total_tokens_eval_sparsity_variance: int = Field(description="for the rest")


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


class Circumstanced(Closed):
    """By evaluation."""

    dictionary_learning: Circumstances | None = None
    sae_bench_core: Circumstances | None = None


class Row(Subject):
    """One judged thing. An evaluation's own file has its figures alone."""

    model_config = ConfigDict(title="metrics.json, a row")

    inference: str | None = Field(
        description="`top_k` or `threshold` where an architecture has both; its loader's way first"
    )
    dictionary_learning: DictionaryLearningFigures | None = None
    sae_bench_core: SaeBenchCoreFigures | None = None
    warnings: list[str] = Field(description="what a reader should know, such as a missed target")
    evaluations: Circumstanced


def content(rows: Sequence[Row]) -> bytes:
    """Rows as a file; what an evaluation did not give is left out."""
    plain = [row.model_dump(mode="json", exclude_unset=True) for row in rows]
    return (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode()


def read(file: bytes) -> list[Row]:
    """The rows of a file; ValueError where it has none."""
    return TypeAdapter(list[Row]).validate_json(file)


def read_file(path: Path) -> list[Row]:
    """The rows of a file; SaemakeError where it is damaged."""
    try:
        return read(path.read_bytes())
    except ValueError as error:
        way_out = "delete it and run the same command again"
        raise SaemakeError(f"{path}: cannot be read ({first_line(error)}); {way_out}") from None


def joined(evaluations: Sequence[Sequence[Row]]) -> list[Row]:
    """One row of the rows that several evaluations give of the same thing, in the order of the
    first."""
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    plain = (row.model_dump(exclude_unset=True) for rows in evaluations for row in rows)
    for row in plain:
        there = found.setdefault((row["name"], row["inference"]), row)
        if there is not row:
            # What is said of the training, each of its evaluations says.
            row["warnings"] = list(dict.fromkeys([*there["warnings"], *row["warnings"]]))
            row["evaluations"] = there["evaluations"] | row["evaluations"]
            there |= row
    return [Row.model_validate(row) for row in found.values()]


def schema() -> str:
    """The JSON schema of metrics.json: docs/metrics.schema.json."""
    described = TypeAdapter(list[Row]).json_schema()
    described["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    described["title"] = "metrics.json"
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"
