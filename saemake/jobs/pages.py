"""The pages of SAEs, from what they show."""

from pathlib import Path

from saemake.base.files import write
from saemake.config.config import Config
from saemake.features import page, table
from saemake.paths.files import FEATURES, FEATURES_PAGE
from saemake.paths.names import Trained
from saemake.paths.sweeps import members


def draw_pages(config: Config, trained: Trained) -> None:
    """Write features.html of each SAE of a pass from its features.parquet. Raises SaemakeError
    where one cannot be read."""
    saes = members(config, trained)
    for sae in saes:
        rows, summary = table.read(Path(sae.folder, FEATURES))
        write(f"{sae.folder}/{FEATURES_PAGE}", page.html(sae, rows, summary, saes).encode())
