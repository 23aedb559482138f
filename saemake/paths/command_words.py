"""Words of a command line: which of them are meant as artifacts, and what is meant by one that is
none."""

from pathlib import PurePosixPath

from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.paths.artifacts import Artifact
from saemake.paths.grammar import a_figure, parse
from saemake.paths.names import (
    CIRCUIT_TRACER,
    HUB,
    PUBLISHED,
    PUBLISHED_TO,
    RESULTS,
    SAELENS,
    TOPS,
    misspelt_top,
)
from saemake.paths.starts import check_artifact

# Under which a YAML file is an artifact, and no config file.
WITH_YAML = (HUB, PUBLISHED, PUBLISHED_TO, SAELENS, CIRCUIT_TRACER)


def check_target(config: Config, word: str) -> Artifact | None:
    """The artifact that a word is meant as; None for a word that is not meant as one, such as a
    config file and a word without a folder. Raises SaemakeError, naming the nearest right name, if
    the config has no such artifact."""
    word = plain(word)
    parts = PurePosixPath(word).parts
    top = parts[0] if parts else ""
    if word.endswith((".yaml", ".yml")) and top not in WITH_YAML:
        return None
    if (meant := misspelt_top(word)) is not None:
        raise SaemakeError(f"{word}: did you mean '{'/'.join([meant, *parts[1:]])}'?")
    if len(parts) > 2 and RESULTS in parts and top in ("/", ".."):
        at = parts.index(RESULTS)
        folder, target = PurePosixPath(*parts[:at]), "/".join(parts[at:])
        raise SaemakeError(
            f"{word}: targets are relative to the working directory; in {folder} name {target}"
        )
    if word in config.models:
        raise SaemakeError(
            f"{word}: this is a model; name what to build of it, such as {a_figure(config, word)}"
        )
    if len(parts) > 2 and top in config.models:
        raise SaemakeError(f"{word}: did you mean '{RESULTS}/{word}'?")
    if top in TOPS and (len(parts) > 1 or top != RESULTS):
        artifact = parse(config, word)
        check_artifact(config, artifact)
        return artifact
    return None


def plain(word: str) -> str:
    """A path without `./`, repeated and trailing slashes, as Snakemake reads it."""
    return str(PurePosixPath(word))


def artifact_of(config: Config, word: str) -> Artifact:
    """The artifact that a word of a command means. Raises SaemakeError as check_target does, and
    for a word that is no path of an artifact."""
    return check_target(config, word) or parse(config, plain(word))
