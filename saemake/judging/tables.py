"""Write what was judged as tables."""

from collections.abc import Callable, Sequence
from pathlib import Path

from saemake.base.files import write
from saemake.base.store import Store
from saemake.judging.evaluate import Judged
from saemake.judging.subjects import Table
from saemake.metrics import rows


def write_tables(
    tables: Sequence[Table],
    rows_of: Callable[[Judged], list[rows.Row]],
    store: Store,
    stored: str,
    beside: str,
) -> None:
    """Write the rows of each table. Beside an SAE's, link the file `stored` of its evaluation in
    the store under the name `beside`."""
    for table in tables:
        table_rows = [row for judged in table.judged for row in rows_of(judged)]
        write(f"{table.stem}.json", rows.content(table_rows))
        if table.latents:
            store.link(table.judged[0].key, {stored: Path(table.stem).parent / beside})
