"""The project's config and working directory, for the commands."""

import os
from pathlib import Path
from typing import Any

from snakemake.utils import update_config

from saemake.base import source, yaml_file
from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.paths.asked_latents import check_asked_latents
from saemake.paths.names import RESULTS, STORE
from saemake.paths.starts import check_suites


def load_config(over: list[Path]) -> Config:
    """The project's config, updated with the files `over` as snakemake does with --configfile."""
    files = [source.ROOT / "config" / "config.yaml", *over]
    raw: dict[str, Any] = {}
    for path in files:
        update_config(raw, yaml_file.read(path))
    config = read(raw, source.ROOT, files)
    check_asked_latents(config)
    check_suites(config)
    return config


def folder(here: Path) -> Path:
    """The folder that holds results/: the working directory `here` or the nearest one above it in
    which saemake has built; else the project's own."""
    return next((each for each in (here, *here.parents) if (each / STORE).is_dir()), source.ROOT)


def enter_above() -> None:
    """Go to the nearest folder, here or above, in which saemake has built. Stay if there is
    none."""
    found = folder(here := Path.cwd())
    if here.is_relative_to(found):
        os.chdir(found)


def enter() -> None:
    """Go to the folder that holds results/. Raises SaemakeError if nothing was ever built there."""
    here = Path.cwd()
    found = here if (here / RESULTS).is_dir() else folder(here)
    if not (found / RESULTS).is_dir():
        raise SaemakeError(
            f"there is no folder {RESULTS}/ in {here}; run this in the folder where you ran"
            " snakemake"
        )
    os.chdir(found)
