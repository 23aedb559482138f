"""Tables of what was judged."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from saemake.base.files import write, write_json
from saemake.base.saying import say
from saemake.metrics import cautions, rows


def join(evaluations: Iterable[str]) -> None:
    """Join the evaluations in each folder into its metrics.json. One line on stderr tells which
    SAEs have warnings."""
    all_rows = []
    for folder, files in itertools.groupby(map(Path, evaluations), key=lambda path: path.parent):
        joined = rows.joined([rows.read_file(file) for file in files])
        write(f"{folder}/metrics.json", rows.content(joined))
        all_rows += joined
    _tell(cautions.told(all_rows))


def sweep_table(saes: Iterable[str], baselines: str, output: str) -> None:
    """Gather the metrics of a sweep's SAEs, and of the baselines, into one table. One line on
    stderr tells which SAEs have their first warning here."""
    gathered = [row for path in [*saes, baselines] for row in rows.read_file(Path(path))]
    table = cautions.beside_pca(gathered)
    write(output, rows.content(table))
    _tell(cautions.told(table, before=gathered))


def _tell(line: str | None) -> None:
    if line is not None:
        say(line)


def gather(objects: Iterable[str], output: str) -> None:
    """Gather JSON objects, one a file, into a list."""
    write_json(output, [json.loads(Path(path).read_text()) for path in objects])
