"""Draw figures, as PDF and SVG."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from saemake.base.files import write
from saemake.figures import frontier, published


def draw(figure: str, title: str, tables: Iterable[str], outputs: Mapping[str, str]) -> None:
    """A figure of a suite; `outputs` are its paths by format."""
    _draw(frontier, figure, title, tables, outputs)


def draw_published(
    figure: str, title: str, comparisons: Iterable[str], outputs: Mapping[str, str]
) -> None:
    """A figure of rebuilt SAEs beside published ones."""
    _draw(published, figure, title, comparisons, outputs)


def _draw(
    kind: ModuleType, figure: str, title: str, tables: Iterable[str], outputs: Mapping[str, str]
) -> None:
    drawn = kind.draw(kind.table([Path(path) for path in tables]), figure, title)
    for suffix, path in outputs.items():
        write(path, frontier.render(drawn, suffix))
