"""What a word of a command names: a path, and the files that stand for it. `build`, `plan`, `why`
and `verify` take the same words.
"""

import os
from pathlib import Path

from saemake.commands import command_line
from saemake.config.config import Config
from saemake.config.sections import FIGURES
from saemake.paths.files import build_files
from saemake.paths.folders import ALL, files_for
from saemake.paths.names import RESULTS, TOPS


def first_parts(config: Config) -> set[str]:
    """The first parts of paths that leave out results/."""
    return {*config.models, FIGURES}


def path_of(config: Config, word: str, here: Path, folder: Path) -> str:
    """The path that a word typed in the folder `here` names, relative to `folder`, which has
    results/. A path that begins with a model, or with the folder of the config's figures, is under
    results/."""
    word = os.path.normpath(word)
    top = word.split("/")[0]
    if top in first_parts(config):
        return f"{RESULTS}/{word}"
    path = Path(os.path.normpath(here / word))
    # From another folder a target may be given as the README has it, too.
    as_it_is = top in TOPS and not path.exists()
    if (
        not as_it_is
        and (here != folder or Path(word).is_absolute())
        and path.is_relative_to(folder)
    ):
        inside = str(path.relative_to(folder))
        return inside if path.exists() or command_line.is_artifact(inside) else word
    return word


def files_of(config: Config, path: str) -> list[str]:
    """The files that stand for a path, as `saemake build` builds them. Raises SaemakeError if the
    config has no such file or folder."""
    return build_files(config) if path == ALL else files_for(config, path)
