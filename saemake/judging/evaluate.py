"""Evaluation, once for everything that is judged together: one run of the LM over the text. What
was judged before, by its very bytes, is in the store.
"""

import contextlib
import dataclasses
import io
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from saemake import evaluation
from saemake.base import devices, onednn
from saemake.base.errors import SaemakeError
from saemake.base.store import Store
from saemake.evaluation.codecs import Codec, Judgement, check_lm_width
from saemake.evaluation.description import Settings
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.metrics import cautions, rows
from saemake.recipes.judging import evaluation_key
from saemake.recipes.kinds import EvaluationRecipe, JudgedBy
from saemake.text.shards import Tokens

log = logging.getLogger(__name__)
FIGURES = "figures.json"
LATENTS = "latents.parquet"
RECIPE = "recipe.json"


@dataclasses.dataclass(frozen=True)
class Judged:
    """Something to be judged: what its rows say of it, its evaluation's recipes (one, or by SAE
    Bench one a seed), its file and the sha256 of that, how to load it with a way of choosing
    latents, and what its rows warn of besides what figures do. An SAE's config.json lies in
    `folder`."""

    subject: rows.Subject
    recipes: Sequence[JudgedBy]
    sha256: str
    load: Callable[[torch.device, str | None], Codec]
    folder: Path
    file: str
    warnings: Sequence[str] = ()

    @property
    def recipe(self) -> EvaluationRecipe:
        """Of an evaluation that reads a text."""
        (recipe,) = self.recipes
        assert isinstance(recipe, EvaluationRecipe)
        return recipe

    @property
    def key(self) -> str:
        """What names its evaluation in the store: by SAE Bench, that from the first seed."""
        return self.key_at(0)

    def key_at(self, place: int) -> str:
        """The same, from the seed at a place in the config's seeds."""
        return evaluation_key(self.recipes[place].hash, self.sha256)


def evaluate(
    judged: Sequence[Judged],
    hookpoint: Hookpoint,
    weights: Weights,
    tokens: Tokens,
    store: Store,
    beside: Sequence[Judged] = (),
) -> None:
    """Put the evaluations of all that is judged, by one evaluation, into the store: those that it
    lacks. Where it lacks any, what is `beside` is judged in the same run of the LM, unless it
    cannot be loaded: then its own job says why.

    Raises SaemakeError where the tokens are of another recipe, or something judged is not what its
    path says, or not of the LM's width.
    """
    tokens.check(judged[0].recipe.tokens.hash)
    with store.lock({subject.key for subject in (*judged, *beside)}):
        store.bring({subject.key: subject.recipe.hash for subject in (*judged, *beside)})
        missing = {subject.key: subject for subject in judged if not store.has(subject.key)}
        log.info("%d of %d evaluations are missing", len(missing), len(judged))
        if not missing:
            return
        recipe = next(iter(missing.values())).recipe
        device = devices.choose(recipe.cpu_threads)
        with products(recipe):
            lm = LanguageModel(weights, hookpoint, device, whole=True)
            codecs: dict[tuple[str, str | None], Codec] = {}
            for subject in missing.values():
                codecs |= _codecs(subject, lm, weights.name)
            for subject in beside:
                if subject.key not in missing and not store.has(subject.key):
                    try:
                        codecs |= _codecs(subject, lm, weights.name)
                    except (SaemakeError, OSError) as error:
                        log.warning("%s is not judged beside: %s", subject.subject.name, error)
                        continue
                    missing[subject.key] = subject
            label = f"{recipe.evaluation} of {len(missing)} on {weights.name}/{hookpoint}"
            log.info("judging %d", len(missing))
            judgements = judge_by(recipe, codecs, lm, tokens, label)
        for key, subject in missing.items():
            ways = {way: judgements[key, way] for way in subject.recipe.inferences}
            store.put(key, _entry(subject.recipe, ways))


def _codecs(
    subject: Judged, lm: LanguageModel, lm_name: str
) -> dict[tuple[str, str | None], Codec]:
    """With each way of choosing latents, by the evaluation's key and the way."""
    ways = {way: subject.load(lm.device, way) for way in subject.recipe.inferences}
    for codec in ways.values():
        check_lm_width(subject.subject.name, codec, lm_name, lm.d_model)
    return {(subject.key, way): codec for way, codec in ways.items()}


def settings_of(recipe: EvaluationRecipe) -> Settings:
    """The evaluation's settings in a recipe; None for those that the recipe leaves out."""
    kind = evaluation.on_text(recipe.evaluation).Settings
    left_out: dict[str, Any] = dict.fromkeys(kind.OUTSIDE_RECIPE)
    return kind.model_validate({**left_out, **recipe.settings})


def products(recipe: EvaluationRecipe) -> contextlib.AbstractContextManager[None]:
    """Within it an LM is loaded and judges: through oneDNN, or with the rounding of torch's own
    products, which owners' code has too."""
    owners = evaluation.on_text(recipe.evaluation).needs_owners_rounding(settings_of(recipe))
    return onednn.left_out() if owners else contextlib.nullcontext()


def judge_by(
    recipe: EvaluationRecipe,
    codecs: Mapping[Any, Codec],
    lm: LanguageModel,
    tokens: Tokens,
    label: str,
) -> dict[Any, Judgement]:
    """Judge every codec by the evaluation that a recipe says, in one run of the LM."""
    described = evaluation.on_text(recipe.evaluation)
    settings = settings_of(recipe)
    return described.judge(codecs, lm, tokens, settings, recipe.batch_contexts, label)


def _entry(recipe: EvaluationRecipe, ways: Mapping[str | None, Judgement]) -> dict[str, bytes]:
    figures = [
        {"inference": way, "figures": {k: _number(v) for k, v in judgement.figures.items()}}
        for way, judgement in ways.items()
    ]
    return {
        FIGURES: _json(figures),
        LATENTS: _parquet(ways),
        RECIPE: _json(recipe.model_dump(mode="json")),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _parquet(ways: Mapping[str | None, Judgement]) -> bytes:
    """One row a latent and way of choosing them; what is undefined is null."""
    frames = [
        pd.DataFrame(
            {
                "inference": pd.Series(
                    [way] * len(next(iter(judgement.latents.values()))), dtype="string"
                ),
                "index": range(len(next(iter(judgement.latents.values())))),
                **{name: values.cpu().numpy() for name, values in judgement.latents.items()},
            }
        )
        for way, judgement in ways.items()
    ]
    content = io.BytesIO()
    pd.concat(frames, ignore_index=True).to_parquet(content, index=False)
    return content.getvalue()


def rows_of(judged: Judged, tokens: Tokens, store: Store) -> list[rows.Row]:
    """The rows of something whose evaluation is in the store, one a way of choosing latents."""
    recipe, manifest = judged.recipe, tokens.manifest
    circumstances = rows.Circumstances(
        recipe_hash=recipe.hash,
        split=recipe.tokens.split,
        held_out=recipe.settings["held_out"],
        documents=manifest["documents"],
        tokens=manifest["tokens"],
        context_tokens=recipe.tokens.context_tokens,
        special_tokens=manifest["special_tokens"],
        sha256=judged.sha256,
        **{key: value for key, value in recipe.settings.items() if key == "drop"},
    )
    ways = json.loads(store.read(judged.key, FIGURES))
    warnings = cautions.of_figures(recipe, {way["inference"]: way["figures"] for way in ways})
    return [
        rows.row_type().model_validate(
            {
                **judged.subject.model_dump(exclude_unset=True),
                "inference": way["inference"],
                recipe.evaluation: way["figures"],
                "warnings": [*judged.warnings, *told],
                "evaluations": {recipe.evaluation: circumstances.model_dump(exclude_unset=True)},
            }
        )
        for way, told in zip(ways, warnings, strict=True)
    ]


def judged_subject(store: Store, key: str) -> str | None:
    """The hash of what a stored evaluation judges; None where it cannot be read."""
    try:
        return json.loads(store.read(key, RECIPE))["subject"]
    except (OSError, ValueError, KeyError):
        return None


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
