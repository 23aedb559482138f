"""Build targets: runs snakemake with this project's Snakefile and profile.

A target is a file that README.md lists, or a folder: an SAE or a sweep (all its evaluations), a
layer or a model (the figures of its suite). `results/` may be left out: `demo/L3/top_k/1k/k_8`.
Without a target it builds what the config lists under `build`. Targets and snakemake's options may
come in any order: -n plans only, --cores N, --configfile FILE, --directory FOLDER, ...

It builds in the folder whose results/ the working directory is in or has, else in the project's
folder. On a machine with an NVIDIA GPU one job at a time uses it; --resources gpu=N changes that.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from saemake.base import source
from saemake.base.saying import say
from saemake.commands import command_line, project
from saemake.config.config import Config
from saemake.paths.folders import files_for

USAGE = "usage: saemake build [TARGET ...] [OPTION OF SNAKEMAKE ...]"
HELP = {"-h", "--help"}
# Options of snakemake that say where to build.
FOLDER_OPTIONS = {"--directory", "-d"}
YAML = {".yaml", ".yml", ".json"}
# The driver lists the GPUs of a machine here. To ask torch would take seconds.
GPUS = Path("/proc/driver/nvidia/gpus")


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
    directory to where it builds, unless an option says where. Raises SaemakeError if a target is
    none."""
    _, options = command_line.separated(words)
    config_files = [here / path for path in command_line.config_files(options)]
    config = project.load_config([path for path in config_files if path.suffix in YAML])
    names, options = command_line.separated(words, config.models)
    options = [_absolute(word, here) for word in options]
    folder = _enter(options, here)
    targets = [
        file for name in names for file in files_for(config, _inside(config, name, here, folder))
    ]
    program = [sys.executable, "-m", "snakemake", *dict.fromkeys(targets)]
    defaults = ["--snakefile", str(source.ROOT / "Snakefile")]
    if not any(word.startswith(("--workflow-profile", "--profile")) for word in options):
        defaults += ["--workflow-profile", str(source.ROOT / "profiles" / "default")]
    if _has_gpu() and not any(word.startswith(("gpu=", "--resources=gpu=")) for word in options):
        defaults += ["--resources", "gpu=1"]
    return [*program, *defaults, *options]


def _absolute(word: str, here: Path) -> str:
    """A config file by its full path, since snakemake may run in another folder."""
    option, equals, value = word.rpartition("=")
    if Path(value).suffix in YAML and (here / value).is_file():
        return f"{option}{equals}{here / value}"
    return word


def _enter(options: Sequence[str], here: Path) -> Path:
    if any(word.partition("=")[0] in FOLDER_OPTIONS for word in options):
        return here
    folder = project.folder(here)
    if folder != here:
        say(f"builds in {folder}")
        os.chdir(folder)
    return folder


def _inside(config: Config, name: str, here: Path, folder: Path) -> str:
    """A target relative to the folder in which snakemake runs. One that begins with a model is
    under results/."""
    if name.split("/")[0] in config.models:
        return f"results/{name}"
    name = os.path.normpath(name)
    path = Path(os.path.normpath(here / name))
    if (here != folder or Path(name).is_absolute()) and path.is_relative_to(folder):
        inside = str(path.relative_to(folder))
        # From another folder a target may be given as the README has it, too.
        return inside if path.exists() or command_line.is_artifact(inside) else name
    return name


def _has_gpu() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    try:
        return any(GPUS.iterdir())
    except OSError:
        return False
