"""Words of a command line: which of them are meant as artifacts, and what is meant by one that is
none."""

from pathlib import PurePosixPath

from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.paths.grammar import a_figure, parse
from saemake.paths.names import PUBLISHED_TO, RESULTS, TOPS, misspelt_top


def check_target(config: Config, word: str) -> None:
    """Raise SaemakeError, naming the nearest right name, where a word that is meant as an artifact
    is none of this config. A config file and a word without a folder are no targets."""
    word = word.removeprefix("./")
    parts = PurePosixPath(word).parts
    top = parts[0] if parts else ""
    if word.endswith((".yaml", ".yml")) and top != PUBLISHED_TO:
        return
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
        parse(config, word)
