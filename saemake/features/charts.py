"""The charts of a page, as SVG in the page, with their content in words."""

from collections.abc import Sequence
from html import escape
from typing import Any

from saemake.features.table import Summary
from saemake.features.writing import number

HEIGHT = 64
# Of one bar, with its gap.
PITCH, GAP = 6, 1


def bars(row: dict[str, Any]) -> str:
    """The histogram of a latent's activations above 0."""
    counts: list[int] = row["histogram"]
    if not any(counts):
        return ""
    largest = row["contexts"][0]["activation"]
    step = largest / len(counts)
    fullest = counts.index(max(counts))
    words = (
        f"Histogram of the {sum(counts):,} activations above 0. Most, {max(counts):,}, are between"
        f" {number(fullest * step)} and {number((fullest + 1) * step)}; the largest is"
        f" {number(largest)}."
    )
    axis = f"<span>0</span><span>{number(largest)}</span>"
    chart = _svg(counts, words, PITCH)
    return (
        f'<section class="chart"><h4>Activations above 0</h4><figure>{chart}'
        f'<figcaption class="axis">{axis}</figcaption></figure></section>'
    )


def decade_bars(summary: Summary) -> str:
    """How many latents of an SAE have a density in each decade."""
    if not any(summary.densities):
        return ""
    lowest, counts = summary.lowest_decade, summary.densities
    words = "Number of latents by density. " + "; ".join(
        f"from {_density(lowest + place)} to {_density(lowest + place + 1)}: {count:,}"
        for place, count in enumerate(counts)
    )
    chart = _svg(counts, words, 36)
    axis = "".join(f"<span>{_density(lowest + place)}</span>" for place in range(len(counts) + 1))
    return (
        f'<figure class="densities">{chart}<p class="axis" aria-hidden="true">{axis}</p>'
        f"<figcaption>Latents by density: the share of positions where they fire</figcaption>"
        "</figure>"
    )


def _density(exponent: int) -> str:
    """A power of ten in percent."""
    return f"{10.0 ** (exponent + 2):.{max(-exponent - 2, 0)}f} %"


def _svg(counts: Sequence[int], words: str, pitch: int) -> str:
    """Bars, described by `words`. A count that is not 0 has a bar that is seen."""
    width, most = pitch * len(counts), max(counts)
    drawn = "".join(
        f'<rect x="{place * pitch}" y="{HEIGHT - height}" width="{pitch - GAP}" height="{height}"/>'
        for place, count in enumerate(counts)
        if (height := max(round(HEIGHT * count / most), 1) if count else 0)
    )
    return (
        f'<svg role="img" aria-label="{escape(words)}" viewBox="0 0 {width} {HEIGHT}"'
        f' preserveAspectRatio="none">{drawn}</svg>'
    )
