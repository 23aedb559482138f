"""Draw a figure, as PDF and SVG."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from saemake.base.files import write
from saemake.figures import Figure, drawing


def draw(figure: Figure, title: str, tables: Iterable[str], outputs: Mapping[str, str]) -> None:
    """Write a figure. `tables` are the paths of what it reads; `outputs` are its own paths by
    format, `pdf` and `svg`."""
    drawn = drawing.files(figure, map(Path, tables), title)
    for suffix, path in outputs.items():
        write(path, drawn[suffix])
