"""What to build of a folder: the files that stand for it."""

import re

from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.config.sections import FIGURES
from saemake.llm.hookpoint import Hookpoint, is_named
from saemake.paths import files
from saemake.paths.grammar import parse
from saemake.paths.names import CIRCUIT_TRACER, METRICS, PUBLISHED, PUBLISHED_TO, RESULTS, SAELENS
from saemake.paths.sweeps import check_in_model, check_model
from saemake.paths.tracer import CONFIG

# The file that stands for a folder with an SAE, a sweep, or a push in it.
STANDS_FOR = {
    RESULTS: METRICS,
    PUBLISHED: files.COMPARISON,
    SAELENS: files.SAELENS_FILES[0],
    CIRCUIT_TRACER: CONFIG,
    PUBLISHED_TO: files.PLAN,
}
# The target of a plain run.
ALL = "all"
# Of an SAE with a seed, below results/.
MOST_PARTS = 6
# `k_8` and `penalty_0.03` are folders.
A_FILE = re.compile(r"\.[a-z]+[0-9]*$")


def files_for(config: Config, path: str) -> list[str]:
    """The files to build of a path: itself if it is a file's (or a folder under hub/), else those
    that stand for the folder. Of an SAE and of a sweep this is the table of all evaluations; of a
    layer and of a model, what a plain run builds of the suite.

    Raises SaemakeError if the config has no such file or folder.
    """
    path = path.rstrip("/")
    if path == ALL:
        return [path]
    try:
        of_suite = _of_suite(config, path)
    except SaemakeError as error:
        raise SaemakeError(f"{path}: {error}") from None
    if of_suite:
        return of_suite
    try:
        return [_parsed(config, path)]
    except SaemakeError as error:
        top, *inside = path.split("/")
        if A_FILE.search(path) or top not in STANDS_FOR or not 0 < len(inside) <= MOST_PARTS:
            raise
        not_a_file = error
    file = f"{path}/{STANDS_FOR[top]}"
    try:
        return [_parsed(config, file)]
    except SaemakeError as error:
        # The name of a file without its ending says more as a file than as a folder.
        if "has no file" in str(error):
            raise not_a_file from None
        # Nobody named that file.
        raise SaemakeError(f"{path}: {str(error).removeprefix(f'{file}: ')}") from None


def _parsed(config: Config, path: str) -> str:
    parse(config, path)
    return path


def _of_suite(config: Config, path: str) -> list[str]:
    """What a plain run builds of a model, a layer or its figures, or the figures of the config;
    empty of another path."""
    match path.split("/"):
        case [top, name] if top == RESULTS and name == FIGURES and config.figures:
            return files.own_figure_files(config)
        case [top, model] if top == RESULTS and model != FIGURES:
            check_model(config, model)
            places = config.models[model].suite.hookpoints
            return [file for at in places for file in files.hookpoint_files(config, model, at)]
        case [top, model, name, *below] if top == RESULTS and is_named(name):
            check_model(config, model)
            hookpoint = Hookpoint.named(name)
            check_in_model(config, model, hookpoint)
            return _of_hookpoint(config, model, hookpoint, below)
    return []


def _of_hookpoint(config: Config, model: str, hookpoint: Hookpoint, below: list[str]) -> list[str]:
    match below:
        case []:
            return files.hookpoint_files(config, model, hookpoint)
        case [name] if name == FIGURES:
            return files.figure_files(config, model, hookpoint)
        case [name] if name in config.architectures:
            widths = ", ".join(f"{name}/{width}" for width in config.widths)
            raise SaemakeError(
                f"the folder of an architecture is no target; name a width in it: {widths}, ..."
            )
    return []
