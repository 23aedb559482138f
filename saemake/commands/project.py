"""The project's config and working directory, for the commands."""

from pathlib import Path
from typing import Any

from snakemake.utils import update_config

from saemake.base import source, yaml_file
from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.paths.asked_latents import check_asked_latents
from saemake.paths.names import RESULTS


def load_config(over: list[Path]) -> Config:
    """The project's config, updated with the files `over` as snakemake does with --configfile."""
    files = [source.ROOT / "config" / "config.yaml", *over]
    raw: dict[str, Any] = {}
    for path in files:
        update_config(raw, yaml_file.read(path))
    config = read(raw, source.ROOT, files)
    check_asked_latents(config)
    return config


def check_folder() -> None:
    """Raise SaemakeError if nothing was ever built in the working directory."""
    if not Path(RESULTS).is_dir():
        raise SaemakeError(
            f"there is no folder {RESULTS}/ in {Path.cwd()}; run this in the folder where you ran"
            " snakemake"
        )
