"""By which evaluations a thing can be judged, and why not by others. SAE Bench's code knows certain
LMs and architectures only."""

import functools
from collections.abc import Iterable
from pathlib import Path

from saemake import evaluation
from saemake.architectures import elsewhere
from saemake.config.config import Config
from saemake.llm.hookpoint import RESID_POST
from saemake.paths.names import (
    Baselines,
    Checkpoints,
    PublishedSweep,
    SaeName,
    Subjects,
    Sweep,
)

# The models that transformer-lens 3.9.0 knows, also by their names without the owner, which SAE
# Bench uses (tests/acceptance/test_sae_bench_alone.py compares).
KNOWN_LMS = "resources/saebench/transformer_lens.txt"


def transformer_lens_name(config: Config, model: str) -> str:
    """What TransformerLens calls a model: where the config does not say, its Hub id or its key."""
    said = config.models[model]
    return said.transformer_lens or said.hub or model


def short_name(name: str) -> str:
    """The name that SAE Bench's code uses: without the owner."""
    return name.rpartition("/")[2]


def judge_key(config: Config, model: str, name: str) -> str | None:
    """The environment variable with the key of an evaluation's judge; None where it has none."""
    judge = getattr(config.sae_bench_of(model, name), "judge", None)
    return None if judge is None else str(judge.key_variable)


def evaluations_of(config: Config, subjects: Subjects) -> list[str]:
    """The evaluations whose figures are in the metrics.json of what one job judges: the suite's
    without those that cannot judge it."""
    return [
        name
        for name in config.suite_evaluations(subjects.model)
        if why_not(config, subjects, name) is None
    ]


def why_not(config: Config, subjects: Subjects, name: str) -> str | None:
    """Why an evaluation cannot judge something; None where it can."""
    if name in config.text_evaluations:
        return None
    return (
        _refused_site(subjects)
        or _refused_model(config, subjects.model, name)
        or _refused_sae(config, subjects, name)
    )


def _refused_site(subjects: Subjects) -> str | None:
    site = subjects.hookpoint.site
    if site == RESID_POST:
        return None
    return f"SAE Bench reads the residual stream after a block ({RESID_POST}), and this is {site}"


def _refused_model(config: Config, model: str, name: str) -> str | None:
    described, settings = evaluation.by_sae_bench(name), config.sae_bench_of(model, name)
    lm = config.sae_bench_lm(model, name)
    known_as = transformer_lens_name(config, lm)
    if known_as not in _known_lms(config.root / KNOWN_LMS):
        return (
            f"SAE Bench runs the models that TransformerLens knows ({KNOWN_LMS}), and {known_as} is"
            f" none of them; models.{lm}.transformer_lens can say which of them it is"
        )
    if config.models[lm].gguf_file is not None:
        return f"TransformerLens reads no GGUF file, and {lm} is one"
    return described.refusal(settings, short_name(known_as))


@functools.cache
def _known_lms(path: Path) -> frozenset[str]:
    return frozenset(path.read_text().split())


def _refused_sae(config: Config, subjects: Subjects, name: str) -> str | None:
    """The baseline that SAE Bench judges is PCA."""
    sweep = _sweep_of(subjects)
    if sweep is None:
        return None
    settings = config.sae_bench_of(subjects.model, name)
    needed = evaluation.by_sae_bench(name).latents_needed(settings)
    latents, shape = config.latents(sweep.width), config.models[subjects.model].shape
    if latents < needed:
        return f"its settings need {needed} latents, and {sweep.width} has {latents}"
    if shape is not None and latents < shape.d_model:
        return f"SAE Bench takes no SAE of fewer latents than the LM is wide ({shape.d_model})"
    if not elsewhere.read_elsewhere(sweep.architecture):
        return f"SAE Bench has no loader for {sweep.architecture}"
    return None


def _sweep_of(subjects: Subjects) -> Sweep | None:
    match subjects:
        case Sweep():
            return subjects
        case SaeName(sweep) | PublishedSweep(sweep) | Checkpoints(SaeName(sweep)):
            return sweep
        case Baselines():
            return None


def judged_apart(config: Config, name: str, sweeps: Iterable[Sweep]) -> list[Sweep]:
    """The sweeps that an evaluation can judge and whose metrics.json lack it, since it is not of
    their suite. An empty name is no evaluation."""
    return [
        sweep
        for sweep in sweeps
        if name
        and name not in config.suite_evaluations(sweep.model)
        and why_not(config, sweep, name) is None
    ]


def left_out(config: Config, subjects: Subjects) -> list[str]:
    """A line for each evaluation of the suite that cannot judge something."""
    return [
        f"{name} is left out for {subjects}: {reason}"
        for name in config.suite_evaluations(subjects.model)
        if (reason := why_not(config, subjects, name)) is not None
    ]
