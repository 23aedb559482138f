"""From which SAE the training of another begins (`training.start_from`)."""

import functools
from collections.abc import Iterable

from saemake import architectures
from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.config.faults import ConfigError
from saemake.config.start_from import filled, key_of, models_before
from saemake.paths.artifacts import Artifact, CheckpointsFile, SaeFile, SweepTable
from saemake.paths.files import PUBLISHED_WEIGHTS, suite_saes
from saemake.paths.grammar import parse
from saemake.paths.names import PUBLISHED, RESULTS, SaeName, Trained
from saemake.paths.sweeps import members

WEIGHTS = "ae.pt"
# The files of a source that a job reads.
OF_SOURCE = {RESULTS: (WEIGHTS, "config.json", "provenance.json"), PUBLISHED: PUBLISHED_WEIGHTS}


def start_of(config: Config, sae: SaeName) -> SaeFile | None:
    """The ae.pt that an SAE's training begins from, under results/ or published/; None where its
    weights are drawn.

    Raises ConfigError where the config names no SAE, or one of another shape.
    """
    template = config.training_of(sae.model).start_from
    if template is None:
        return None
    models_before(config, sae.model)  # raises where these go round in a circle
    key, path = key_of(config, sae.model), filled(template, str(sae)).removesuffix(f"/{WEIGHTS}")
    try:
        source = parse(config, f"{path}/{WEIGHTS}")
    except SaemakeError as error:
        raise ConfigError(key, f"for {sae}: {error}") from None
    if not isinstance(source, SaeFile) or source.file != WEIGHTS:
        raise ConfigError(key, f"for {sae}: {path} is not the path of an SAE")
    if (reason := _why_not(config, sae, source)) is not None:
        raise ConfigError(key, f"{sae} cannot start from {_name(source)}: {reason}")
    return source


def _name(source: SaeFile) -> str:
    return f"{source.top}/{source.sae}"


def _why_not(config: Config, sae: SaeName, source: SaeFile) -> str | None:
    """Why the weights of one SAE cannot be those of another, as far as their names tell it."""
    ours, theirs = sae.sweep, source.sae.sweep
    if ours.hookpoint.is_transcoder != theirs.hookpoint.is_transcoder:
        kind, other = ("a transcoder", "an SAE")[:: 1 if theirs.hookpoint.is_transcoder else -1]
        return f"it is {kind}, not {other}"
    kind = _weights_as(ours.architecture)
    if kind != _weights_as(theirs.architecture):
        like = [name for name in config.architectures if _weights_as(name) == kind]
        return (
            f"{theirs.architecture} has other weights than {ours.architecture}, which takes those"
            f" of {', '.join(like)}"
        )
    widths = [config.latents(each.width) for each in (ours, theirs)]
    if widths[0] != widths[1]:
        return f"it has {widths[1]:,} latents, not {widths[0]:,}: name an SAE of the same width"
    shapes = [config.models[each.model].shape for each in (sae, source.sae)]
    sizes = [None if shape is None else shape.d_model for shape in shapes]
    if None not in sizes and sizes[0] != sizes[1]:
        return f"its LM is {sizes[1]} wide, not {sizes[0]} (models.<name>.shape.d_model)"
    return None


def _weights_as(architecture: str) -> str:
    return architectures.get(architecture).weights_as()


def source_files(config: Config, saes: Iterable[SaeName]) -> list[str]:
    """The files of the SAEs that the training of some SAEs begins from, each once."""
    # Asked for each job of a run: a model's settings are checked anew each time, so once a model.
    drawn = functools.cache(lambda model: config.training_of(model).start_from is None)
    starts = (start_of(config, sae) for sae in saes if not drawn(sae.model))
    return list(
        dict.fromkeys(
            f"{_name(start)}/{file}"
            for start in starts
            if start is not None
            for file in OF_SOURCE[start.top]
        )
    )


def check_suites(config: Config) -> None:
    """Raise ConfigError where an SAE of a suite cannot start where the config says."""
    for model in config.models:
        if config.training_of(model).start_from is not None:
            for sae in suite_saes(config, model):
                start_of(config, sae)


def check_artifact(config: Config, artifact: Artifact) -> None:
    """Raise ConfigError where the SAEs of an artifact cannot start where the config says."""
    of: Trained | None = None
    match artifact:
        case SaeFile(top, sae) if top != PUBLISHED:
            of = sae
        case CheckpointsFile(checkpoints):
            of = checkpoints.sae
        case SweepTable(sweep):
            of = sweep
    if of is not None:
        for sae in members(config, of):
            start_of(config, sae)
