"""Checks snakemake's command line before snakemake reads it, for targets that an option would
swallow and for config files that cannot be read. Snakemake answers both with a traceback.
"""

import importlib.util
import itertools
import shlex
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePath

from saemake.base import source, yaml_file
from saemake.base.errors import SaemakeError, nearest
from saemake.paths.files import FEATURES_PAGE, REPORT
from saemake.paths.names import TOPS, misspelt_top

CONFIG_FILES = {"--configfile", "--configfiles"}
# Options of snakemake that take all words after them. None of these takes a rule's name.
TAKE_VALUES = {
    *CONFIG_FILES,
    *("--config", "-C", "--envvars", "--rerun-triggers", "--logger", "--strict-dag-evaluation"),
    *("--resources", "--res", "--set-resources", "--set-resource-scopes", "--set-threads"),
    *("--default-resources", "--default-res", "--set-scatter", "--consider-ancient", "--groups"),
    *("--group-components", "--shared-fs-usage", "--software-deployment-method"),
    *("--deployment-method", "--deployment", "--sdm"),
}
# These also take names of rules, or the word `all`.
TAKE_WORDS = {
    *("--quiet", "-q", "--cache", "--preemptible-rules", "--allowed-rules", "--omit-flags"),
}
# These take at most one word.
TAKE_ONE = {
    *("--report", "--lint", "--dag", "--rulegraph", "--containerize", "--scheduler"),
    "--conda-cleanup-pkgs",
}
# These take rules and files. A file after a rule is probably meant as a target.
TAKE_TARGETS = {
    *("--forcerun", "-R", "--until", "-U", "--omit-from", "-O", "--prioritize", "-P"),
}
# These take a path that is no target.
TAKE_A_PATH = {
    *("--directory", "-d", "--snakefile", "-s", "--profile", "--workflow-profile"),
    *("--report", "--archive"),
}
# Further options that commands often have. They are known without snakemake's parser, which takes
# half a second to import.
USUAL = {
    *("--cores", "--jobs", "--dry-run", "--dryrun", "--keep-going", "--keep-incomplete", "--help"),
    *("--force", "--forceall", "--rerun-incomplete", "--unlock", "--logger-saemake-off"),
}
# Endings of config files.
CONFIG_SUFFIXES = {".yaml", ".yml", ".json"}
# Endings of files that are not targets: config files and reports of snakemake's.
NO_TARGET = {".yaml", ".yml", ".html", ".zip"}
# Pages that are targets, and how many parts their paths have at least.
PAGES = {REPORT: 4, FEATURES_PAGE: 7}


def check(words: Sequence[str]) -> None:
    """Check the words after `snakemake`. Raises SaemakeError if a target follows an option that
    takes it as its own value, if a config file cannot be read, or if the workflow profile or the
    executor is not here."""
    check_order(["snakemake"], words)
    for path in (source.ROOT / "config" / "config.yaml", *map(Path, config_files(words))):
        yaml_file.read(path)
    _check_workflow_profile(words)
    _check_executor(words)


def _executor_and_profiles(words: Sequence[str]) -> dict[str, str]:
    """The executor and the profiles that the words name; '' where they name none."""
    values = {"--executor": "", "--workflow-profile": "", "--profile": ""}
    for word, after in itertools.pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        option = "--executor" if option == "-e" else option
        if option in values:
            values[option] = value if equals else after
    return values


def _check_workflow_profile(words: Sequence[str]) -> None:
    """Raise SaemakeError if there is no such folder. Snakemake looks for other profiles in several
    places."""
    profile = _executor_and_profiles(words)["--workflow-profile"]
    if profile in ("", "none") or any(Path(profile).glob("config*.yaml")):
        return
    known = sorted(map(str, Path("profiles").glob("*/"))) or ["profiles/slurm"]
    raise SaemakeError(
        f"--workflow-profile: {profile} has no config.yaml; {nearest(profile, known)}"
    )


def _check_executor(words: Sequence[str]) -> None:
    """Raise SaemakeError if the command or its profile wants an executor that is not installed, or
    Slurm where there is none."""
    values = _executor_and_profiles(words)
    place, name = "--executor", values["--executor"]
    for option in ("--workflow-profile", "--profile"):
        profile = Path(values[option], "config.yaml")
        if not name and values[option] and profile.is_file():
            place, name = str(profile), str(yaml_file.read(profile).get("executor") or "")
    if name in ("", "local", "dryrun", "touch"):
        return
    if importlib.util.find_spec(f"snakemake_executor_plugin_{name.replace('-', '_')}") is None:
        how = "run `make slurm`" if name == "slurm" else f"install snakemake-executor-plugin-{name}"
        raise SaemakeError(f"{place}: Snakemake's executor '{name}' is not installed; {how}")
    looks_only = {"-n", "--dry-run", "--dryrun"} & set(words)
    if name == "slurm" and not looks_only and shutil.which("sbatch") is None:
        raise SaemakeError(
            f"{place}: there is no Slurm on this machine (no sbatch); run it on a login node"
        )


def check_order(program: Sequence[str], words: Sequence[str]) -> None:
    """Raise SaemakeError, with the corrected command, if an option takes a target as its own
    value."""
    misplaced = {place: option for option, place in _misplaced(words)}
    if not misplaced:
        return
    first, option = next(iter(misplaced.items()))
    targets = [words[place] for place in misplaced]
    others = [word for place, word in enumerate(words) if place not in misplaced]
    raise SaemakeError(
        f"{words[first]} comes after {option}, which takes it as its own value; name targets first:"
        f" {shlex.join([*program, *targets, *others])}"
    )


def check_options(words: Sequence[str]) -> None:
    """Raise SaemakeError, with the nearest option, if snakemake has no such long option. Its own
    parser prints all its options first."""
    before = itertools.takewhile(lambda word: word != "--", words)
    long = [word.partition("=")[0] for word in before if word.startswith("--")]
    known = USUAL | TAKE_VALUES | TAKE_WORDS | TAKE_ONE | TAKE_TARGETS | TAKE_A_PATH
    if known.issuperset(long):
        return
    from snakemake.cli import get_argument_parser

    options = [name for action in get_argument_parser()._actions for name in action.option_strings]
    for option in long:
        if not any(name.startswith(option) for name in options):  # it may be shortened
            raise SaemakeError(f"snakemake has no option '{option}'; {nearest(option, options)}")


def separated(
    words: Sequence[str], first_parts: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """The targets among the words after `saemake build`, and the other words. Targets are the words
    before the first option, paths of artifacts that no option of snakemake wants for itself, and
    paths that begin with one of `first_parts`."""
    first = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    after = words[first:]
    taken = {at for option, places in _values(after) if option in TAKE_TARGETS for at in places}
    taken |= {at + 1 for at, word in enumerate(after) if word in TAKE_A_PATH}
    taken |= {at for option, places in _values(after) for at in _configs(after, option, places)}
    misplaced = {place for _, place in _misplaced(after)}
    at = [
        place
        for place, word in enumerate(after)
        if place in misplaced
        or (place not in taken and (is_artifact(word) or word.split("/")[0] in first_parts))
    ]
    targets = [*words[:first], *(after[place] for place in at)]
    return targets, [word for place, word in enumerate(after) if place not in at]


def _misplaced(words: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Each option that takes a target as its own value, and the index of that target. If the
    command begins with targets, files after options such as `--forcerun` are intended."""
    targets_first = bool(words) and is_artifact(words[0])
    for option, places in _values(words):
        if targets_first and option in TAKE_TARGETS:
            continue
        after_rule = False
        configs = set(_configs(words, option, places))
        for place in places[:1] if option in TAKE_ONE else places:
            if place in configs:
                continue
            names_artifact = is_artifact(words[place])
            is_rule = option in TAKE_VALUES and words[place] == "all"
            if is_rule or (names_artifact and (option not in TAKE_TARGETS or after_rule)):
                yield option, place
            after_rule |= not names_artifact


def config_files(words: Sequence[str]) -> Iterator[str]:
    """The config files that the words name."""
    for option, places in _values(words):
        yield from (words[place] for place in _configs(words, option, places))
    for word in words:
        option, _, value = word.partition("=")
        if option in CONFIG_FILES and value:
            yield value


def _configs(words: Sequence[str], option: str, places: Sequence[int]) -> list[int]:
    """The indices of the config files among the words that an option takes: the first word, and
    further ones that look like config files. Others may be targets."""
    if option not in CONFIG_FILES:
        return []
    return [*places[:1], *(place for place in places[1:] if _is_config_file(words[place]))]


def _is_config_file(word: str) -> bool:
    """Whether a word looks like a config file. Many artifacts are JSON files, too."""
    if is_artifact(word) or PurePath(word).suffix not in CONFIG_SUFFIXES:
        return False
    return PurePath(word).suffix != ".json" or Path(word).is_file()


def _values(words: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    """Each option of the sets above, and the indices of the words that it takes."""
    option, places = "", list[int]()
    for place, word in enumerate([*words, "--"]):
        if not word.startswith("-"):
            places.append(place)
            continue
        if option:
            yield option, places
        option, places = _option(word), []


def _option(word: str) -> str:
    """The option of the sets above that the word is, or abbreviates; '' if there is none."""
    known = TAKE_VALUES | TAKE_WORDS | TAKE_ONE
    if word in known | TAKE_TARGETS:
        return word
    shortened = len(word) > 4 and word.startswith("--")  # `--li` is another option
    return min((name for name in known if shortened and name.startswith(word)), default="")


def is_artifact(word: str) -> bool:
    """Whether a word looks like a path of an artifact, well spelt or not."""
    path = PurePath(word)
    is_page = len(path.parts) >= PAGES.get(path.name, len(path.parts) + 1)
    if len(path.parts) < 2 or (path.suffix in NO_TARGET and not is_page):
        return False
    return path.parts[0] in TOPS or misspelt_top(word) is not None
