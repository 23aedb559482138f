"""The commands of `python -m saemake`, a module each. They look at the working directory's results/
with the config that snakemake would read there."""

from pathlib import Path
from typing import Any

from snakemake.utils import update_config

from saemake import source, yaml_file
from saemake.config import Config, read
from saemake.errors import SaemakeError
from saemake.names import RESULTS

STORE = Path("results/.store")


def load_config(over: list[Path]) -> Config:
    """The project's config with the files `over` laid over it, as snakemake lays them."""
    files = [source.ROOT / "config" / "config.yaml", *over]
    raw: dict[str, Any] = {}
    for path in files:
        update_config(raw, yaml_file.read(path))
    return read(raw, source.ROOT, files)


def check_folder() -> None:
    """Raise SaemakeError where nothing was ever built in the working directory."""
    if not Path(RESULTS).is_dir():
        raise SaemakeError(
            f"there is no folder {RESULTS}/ in {Path.cwd()}; run this in the folder where you ran"
            " snakemake"
        )
