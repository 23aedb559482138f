"""The commands of `python -m saemake`, a module each. They look at the working directory's results/
with the config that snakemake would read there."""

from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from saemake import source
from saemake.config import Config, read
from saemake.errors import SaemakeError, first_line

STORE = Path("results/.store")


def load_config(over: list[Path]) -> Config:
    """The project's config with the files `over` laid over it, as snakemake lays them."""
    files = [source.ROOT / "config" / "config.yaml", *over]
    raw: dict[str, Any] = {}
    for path in files:
        try:
            content = yaml.safe_load(path.read_text())
        except OSError as error:
            raise SaemakeError(f"{path}: {error.strerror}") from None
        except yaml.YAMLError as error:
            raise SaemakeError(f"{path}: no YAML ({first_line(error)})") from None
        if not isinstance(content, dict):
            raise SaemakeError(f"{path}: no mapping of config keys")
        update_config(raw, content)
    return read(raw, source.ROOT, files)
