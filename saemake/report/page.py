"""report.html: one file that works without a network and without scripts. Scripts only sort and
filter its tables."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from saemake.base.html import document, facts
from saemake.report.tables import Cell, Table

STYLE, SCRIPT = (
    Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("report.css", "report.js")
)


@dataclass(frozen=True)
class Picture:
    """A figure: its name, its title, its SVG, and how to read it."""

    name: str
    title: str
    svg: bytes
    caption: str


def html(
    title: str, about: dict[str, str], pictures: Sequence[Picture], tables: Sequence[Table]
) -> str:
    """The report with that title. `about` are facts that stand below it."""
    parts = [("figures", "Figures"), *((table.id, table.title) for table in tables)]
    links = "".join(f'<li><a href="#{id_}">{escape(name)}</a></li>' for id_, name in parts)
    body = f"""<a class="skip" href="#figures">Skip to the figures</a>
<header class="page">
<h1>{escape(title)}</h1>
{facts(about)}
<nav aria-label="Parts of the report"><ul>{links}</ul></nav>
</header>
<main>
<section aria-labelledby="figures">
<h2 id="figures" tabindex="-1">Figures</h2>
<div class="figures">
{"".join(map(_picture, pictures))}
</div>
</section>
{"".join(map(_table, tables))}
</main>
<footer><p>Written by saemake. Each figure is a file in figures/ beside this page, as PDF and
as SVG.</p></footer>"""
    return document(title, STYLE, SCRIPT, body)


def _picture(picture: Picture) -> str:
    # As an image: the ids in one SVG would be those of another, were they in the page itself.
    content = base64.b64encode(picture.svg).decode()
    name, title = escape(picture.name), escape(picture.title)
    return f"""<figure id="{name}">
<img src="data:image/svg+xml;base64,{content}" alt="{title}; the tables have its figures">
<figcaption><strong>{title}.</strong> {escape(picture.caption)} <code>{name}.pdf</code></figcaption>
</figure>
"""


def _table(table: Table) -> str:
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(head)}</button></th>'
        for head in table.heads
    )
    count = len(table.rows)
    return f"""<section aria-labelledby="{table.id}">
<h2 id="{table.id}" tabindex="-1">{escape(table.title)}</h2>
<p>{escape(table.about)}</p>
<div class="tools">
<label for="filter-{table.id}">Show rows that have</label>
<input id="filter-{table.id}" type="search" autocomplete="off" spellcheck="false">
<p class="count" role="status">{count:,} rows</p>
</div>
<div class="scroll" tabindex="0" role="region" aria-label="Table of {escape(table.title)}">
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{"".join(map(_row, table.rows))}</tbody>
</table>
</div>
{_terms(table.terms)}
</section>
"""


def _terms(terms: Mapping[str, str]) -> str:
    if not terms:
        return ""
    pairs = (f"<dt>{escape(name)}</dt><dd>{escape(told)}</dd>" for name, told in terms.items())
    return f'<dl class="terms">{"".join(pairs)}</dl>'


def _row(cells: Iterable[Cell]) -> str:
    first, *others = cells
    name = escape(first.text)
    if first.link:
        name = f'<a href="{escape(first.link)}">{name}</a>'
    return f'<tr><th scope="row">{name}</th>{"".join(map(_cell, others))}</tr>\n'


def _cell(cell: Cell) -> str:
    if cell.number is None:
        return f"<td>{escape(cell.text)}</td>"
    return f'<td class="number" data-value="{cell.number!r}">{escape(cell.text)}</td>'
