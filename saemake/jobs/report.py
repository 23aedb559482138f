"""Write the report of a model's suite at one hookpoint."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from saemake.base.files import write
from saemake.config.config import Config
from saemake.llm.hookpoint import Hookpoint
from saemake.metrics import rows
from saemake.metrics.rows import Row
from saemake.paths import catalogue
from saemake.paths.files import FEATURES_PAGE, suite_sweeps
from saemake.paths.names import METRICS, SaeName
from saemake.paths.sweeps import members
from saemake.published.compare import against_catalogue
from saemake.report import page, tables
from saemake.report.captions import caption, title


def report(
    config: Config, model: str, hookpoint: Hookpoint, figures: Iterable[str], output: str
) -> None:
    """Write it from the tables and provenance of the suite's SAEs, and from the SVGs of its
    `figures`. Raises SaemakeError where a table is damaged."""
    sweeps = suite_sweeps(config, model, hookpoint)
    found = [row for sweep in sweeps for row in rows.read_file(Path(sweep.folder, METRICS))]
    unique = list({(row.name, row.inference): row for row in found}.values())
    saes = [sae for sweep in sweeps for sae in members(config, sweep)]
    has_pages = config.models[model].suite.pages
    pages = {str(sae): f"{_below(sae)}/{FEATURES_PAGE}" for sae in saes if has_pages}
    shown = [tables.of_saes(unique, pages)]
    if any(map(tables.warnings, unique)):
        shown.append(tables.of_warnings(unique))
    if compared := list(_compared(config, saes, unique)):
        shown.append(tables.of_comparisons(compared))
    records = [(sae, json.loads(Path(sae.folder, "provenance.json").read_text())) for sae in saes]
    named = [(_below(sae), record) for sae, record in records]
    shown.append(tables.of_provenance(named))
    pictures = [
        page.Picture(path.stem, title(path.stem), path.read_bytes(), caption(path.stem))
        for path in map(Path, figures)
    ]
    facts = _facts(model, hookpoint, saes, [record for _, record in records], unique)
    write(
        output, page.html(f"SAEs of {model}, {hookpoint.titled}", facts, pictures, shown).encode()
    )


def _below(sae: SaeName) -> str:
    """An SAE's name below its hookpoint."""
    return f"{sae.sweep.architecture}/{sae.sweep.width}/{sae.own_part}"


def _compared(
    config: Config, saes: Sequence[SaeName], found: Sequence[Row]
) -> Iterator[dict[str, Any]]:
    """The comparisons with the catalogue of those SAEs that are published."""
    known = catalogue.load(config)
    for sae in saes:
        entry = known.of_sweep(sae.sweep).get(sae)
        of_sae = [row for row in found if row.name == str(sae)]
        if entry and of_sae:
            yield against_catalogue(entry, str(sae), of_sae, config.published.tolerances)


def _facts(
    model: str,
    hookpoint: Hookpoint,
    saes: Sequence[SaeName],
    records: Sequence[dict[str, Any]],
    found: Sequence[Row],
) -> dict[str, str]:
    lm = records[0]["lm"]
    revision = f", commit {lm['revision'][:12]}" if lm["revision"] else ""
    tokens = sorted({row.tokens for row in found if row.tokens})
    trained = " to ".join(f"{count:,}" for count in dict.fromkeys([tokens[0], tokens[-1]]))
    return {
        "Language model": f"{lm['hub'] or model}{revision}",
        "Site": f"{hookpoint.described} of {lm['layers']}, {lm['d_model']} wide",
        "SAEs": str(len(saes)),
        "Architectures": ", ".join(dict.fromkeys(sae.sweep.architecture for sae in saes)),
        "Widths": ", ".join(dict.fromkeys(sae.sweep.width for sae in saes)),
        "Trained on": f"{trained} tokens",
        "Devices": ", ".join(dict.fromkeys(record["device"] for record in records)),
    }
