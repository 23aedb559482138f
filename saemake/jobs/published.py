"""Published SAEs: pin, fetch, compare; and rebuilt ones laid out as they were published."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from saemake.base import devices
from saemake.base.files import copy, write, write_json
from saemake.base.store import Store
from saemake.config.config import Config
from saemake.inputs import datasets
from saemake.metrics import rows
from saemake.paths import catalogue
from saemake.paths.catalogue import Entry
from saemake.paths.names import PUBLISHED, STORE
from saemake.published import compare, fetch, hub_layout, results


def pin(config: Config, repository: str, revision: str, output: str) -> None:
    """Write down the commit that a revision of a Hub repository of published SAEs names."""
    entries = catalogue.load(config).entries
    model = next(entry.model for entry in entries if entry.repository == repository)
    write_json(output, fetch.pin(repository, revision, model))


def fetch_sae(config: Config, place: str, pinned: Path, outputs: Iterable[str]) -> None:
    """Fetch a published SAE by its folder under hub/, at the commit in `pinned`, and check it."""
    contents = fetch.fetch(catalogue.load(config).at(place), pinned)
    for path in map(Path, outputs):
        write(str(path), contents[path.name])


def compare_with_published(
    config: Config, rebuilt: Path, published: Path, threads: int, output: str, files: Path | None
) -> None:
    """Compare the rebuilt SAE in a folder with the published one in another. `files` says what was
    fetched of the published result files."""
    name = str(published.relative_to(PUBLISHED))
    entry = catalogue.load(config).named(name)
    compared = compare.compare(
        entry,
        name,
        compare.Place.read(rebuilt),
        compare.Place.read(published),
        config.published.tolerances,
        devices.choose(threads),
        None if files is None else _with_results(config, entry, files),
    )
    write_json(output, compared)


def _with_results(
    config: Config, entry: Entry, files: Path
) -> Callable[[rows.Row, rows.Row], dict[str, Any]]:
    described = datasets.read(config, files)
    folder = datasets.place(config, described, Store(STORE, "datasets"))
    found = results.Results(folder, described)
    return lambda rebuilt, published: results.compared(entry, rebuilt, published, found)


def compare_with_catalogue(config: Config, metrics: Path, output: Path) -> None:
    """Compare the figures of a rebuilt SAE with those that the catalogue has."""
    name = str(output.parent.relative_to(PUBLISHED))
    compared = compare.against_catalogue(
        catalogue.load(config).named(name),
        name,
        rows.read_file(metrics),
        config.published.tolerances,
    )
    write_json(str(output), compared)


def lay_out(weights: str, config_json: str, judged: str, outputs: Iterable[str]) -> None:
    """Lay out a rebuilt SAE as the suite was published: ae.pt, config.json, eval_results.json."""
    to_weights, to_config, to_results = outputs
    copy(weights, to_weights)
    copy(config_json, to_config)
    write(to_results, hub_layout.eval_results(rows.read_file(Path(judged))[0]))
