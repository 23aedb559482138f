"""Build targets: runs snakemake with this project's Snakefile and profile.

A target is a file that README.md lists, or a folder: an SAE or a sweep (all its evaluations), a
layer or a model (what a plain run builds of its suite). `results/` may be left out:
`demo/L3/top_k/1k/k_8`. `saemake plan`, `why` and `verify` take the same names.
Without a target it builds what the config lists under `build`. Targets and snakemake's options may
come in any order: -n plans only, --cores N, --configfile FILE, --directory FOLDER, ...

It builds in the folder whose results/ the working directory is in or has, else in the project's
folder. On a machine with an NVIDIA GPU one job at a time uses it, or as many as the largest job
takes (models.<name>.lm_devices, passes.devices_per_pass); --resources gpu=N changes that.
"""

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from saemake.base import gpus, source
from saemake.base.saying import say
from saemake.commands import command_line, project, targets
from saemake.config.config import Config
from saemake.jobs.turns import touched
from saemake.paths.folders import files_for

USAGE = "usage: saemake build [TARGET ...] [OPTION OF SNAKEMAKE ...]"
HELP = {"-h", "--help"}
# Options of snakemake that say where to build; those whose value is a file or folder of the user's.
FOLDER_OPTIONS = {"--directory", "-d"}
FILE_OPTIONS = {
    *command_line.CONFIG_FILES,
    *("--report", "--archive", "--profile", "--workflow-profile"),
}
RESOURCES = {"--resources", "--res"}


def run(words: Sequence[str]) -> None:
    """Replace this process with snakemake's, or print the help. Raises SaemakeError if a target is
    none."""
    if HELP & set(words):
        print(f"{USAGE}\n\n{__doc__}\nsnakemake --help lists the options.")
        return
    command = snakemake_command(words, Path.cwd())
    sys.stdout.flush()
    os.execv(command[0], command)


def snakemake_command(words: Sequence[str], here: Path) -> list[str]:
    """The command that builds what `words` name, typed in the folder `here`. Changes the working
    directory to where it builds, unless an option says where. Raises SaemakeError if a target or an
    option is none."""
    command_line.check_options(words)
    _, options = command_line.separated(words)
    config = project.load_config([here / path for path in command_line.config_files(options)])
    names, options = command_line.separated(words, targets.first_parts(config))
    options = list(_absolute(options, config, here))
    folder = _enter(options, here)
    paths = [targets.path_of(config, name, here, folder) for name in names]
    files = dict.fromkeys(file for path in paths for file in files_for(config, path))
    program = [sys.executable, "-m", "snakemake", *files]
    defaults = ["--snakefile", str(source.ROOT / "Snakefile")]
    if not any(word.startswith(("--workflow-profile", "--profile")) for word in options):
        defaults += ["--workflow-profile", str(source.ROOT / "profiles" / "default")]
    if gpus.on_machine():
        models = [name for name in touched(config, files) if name in config.models]
        options = _with_gpu(options, max(map(config.gpus_to_train, models), default=1))
    return [*program, *defaults, *options]


def _absolute(options: Sequence[str], config: Config, here: Path) -> Iterator[str]:
    """The options, with files that they name by their full paths, since snakemake may run in
    another folder; and with results/ before paths that leave it out."""
    without_results = targets.first_parts(config)
    for before, word in itertools.pairwise(["", *options]):
        option, equals, value = word.rpartition("=")
        of_option = option if equals else before
        is_config = Path(value).suffix in command_line.CONFIG_SUFFIXES and (here / value).is_file()
        is_file = of_option in FILE_OPTIONS and value and not value.startswith("-")
        if is_file or is_config:
            yield f"{option}{equals}{here / value}"
        elif "/" in word and word.split("/")[0] in without_results and before not in FOLDER_OPTIONS:
            yield f"results/{word}"
        else:
            yield word


def _with_gpu(options: Sequence[str], count: int) -> list[str]:
    """The options, which let jobs use so many GPUs at a time if they do not say how many: those of
    the job that takes most, so mostly one."""
    gpu = f"gpu={count}"
    if any(word.startswith("gpu=") or "=gpu=" in word for word in options):
        return [*options]
    for place, word in enumerate(options):
        # Snakemake takes the last --resources alone.
        if word in RESOURCES:
            return [*options[: place + 1], gpu, *options[place + 1 :]]
        option, _, first = word.partition("=")
        if option in RESOURCES:
            return [*options[:place], option, first, gpu, *options[place + 1 :]]
    return [*options, "--resources", gpu]


def _enter(options: Sequence[str], here: Path) -> Path:
    """The folder to build in. It becomes the working directory, unless snakemake itself is told to
    go there."""
    for before, word in itertools.pairwise(["", *options]):
        if before in FOLDER_OPTIONS:
            return (here / word).resolve()
        if word.startswith("--directory="):
            return (here / word.partition("=")[2]).resolve()
        if word.startswith("-d") and not word.startswith("--") and len(word) > 2:
            return (here / word[2:]).resolve()
    folder = project.folder(here)
    if folder != here:
        say(f"builds in {folder}")
        os.chdir(folder)
    return folder
