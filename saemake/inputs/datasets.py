"""Data that SAE Bench's evaluations read: fetched once by a job that may use the network, and laid
out for later jobs without one, with the very files that were fetched."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from datasets import load_dataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from saemake.base.digest import digest
from saemake.base.errors import SaemakeError, first_line
from saemake.base.store import Store, sha256
from saemake.config.config import Config, matching_files
from saemake.config.sections import Dataset
from saemake.hub import FAILURES, every_row, patiently, pinned, reached
from saemake.paths.names import dataset_file
from saemake.recipes.inputs import dataset_recipe

# The file with the recipe, in an entry of rows.
RECIPE = "recipe.json"
# The only loading scripts that are laid out, and so may run.
SCRIPTS = {"codeparrot/github-code": "github-code.py"}


def fetch(config: Config, name: str, store: Store) -> dict[str, Any]:
    """Fetch a dataset. Returns the content of its file under datasets/: its commit, and the sha256
    of each file. `store` keeps rows; beside it, the commits of revisions are kept.

    Raises SaemakeError if the dataset cannot be reached, is gated, or has nothing that was asked
    for.
    """
    said = config.datasets[name]
    revision = None if said.hub is None else _fetched(name, said, store)
    if said.rows is not None:
        assert revision is not None
        _keep_rows(config, name, revision, store)
    folder = _place(config, name, revision, store)
    files = _files(name, said, folder)
    if not files:
        raise SaemakeError(
            f"config key 'datasets.{name}.files': {folder if revision is None else said.hub} has no"
            f" file like {', '.join(said.files)}"
        )
    return {
        "dataset": name,
        "recipe_hash": dataset_recipe(config, name).hash,
        "hub": said.hub,
        "revision": revision,
        "files": {path.relative_to(folder).as_posix(): sha256(path) for path in files},
    }


def read(config: Config, path: Path) -> dict[str, Any]:
    """The content of a file under datasets/. Raises SaemakeError if it is damaged, or describes
    another dataset than the config's."""
    way_out = f"delete {path} and run the same command again"
    try:
        described: dict[str, Any] = json.loads(path.read_text())
        expected = dataset_recipe(config, described["dataset"]).hash
    except (OSError, ValueError, KeyError) as error:
        raise SaemakeError(f"{path}: cannot be read ({first_line(error)}); {way_out}") from None
    if described.get("recipe_hash") != expected:
        raise SaemakeError(f"{path}: describes other data than the config's; {way_out}")
    return described


def place(config: Config, described: Mapping[str, Any], store: Store) -> Path:
    """The folder of a dataset's files, where they lie."""
    name, files = described["dataset"], described["files"]
    return _place(config, name, described["revision"], store, files)


def lay_out(config: Config, described: Mapping[str, Any], folder: Path, store: Store) -> None:
    """Links to a dataset's files in an empty folder. Raises SaemakeError if a file is gone or has
    changed since it was fetched."""
    name = described["dataset"]
    found = place(config, described, store)
    for file, expected in described["files"].items():
        source = found / file
        if not source.is_file() or sha256(source) != expected:
            raise SaemakeError(
                f"dataset '{name}': {source} is gone or has changed since it was fetched; delete"
                f" {dataset_file(name)} and run the same command again"
            )
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve())


def _fetched(name: str, said: Dataset, store: Store) -> str:
    """The commit of a dataset on the Hub, whose files are in the Hub's cache then."""
    assert said.hub is not None
    hub = said.hub

    def resolve(revision: str) -> str:
        if said.rows is not None:
            return str(HfApi().dataset_info(hub, revision=revision).sha)
        return patiently(lambda: _snapshot(said, revision, offline=False)).name

    with _reached(said, said.revision, f"snakemake {dataset_file(name)} --cores 1"):
        return pinned(store.beside("revisions"), "dataset", hub, said.revision, resolve)


def _reached(said: Dataset, revision: str, command: str) -> AbstractContextManager[None]:
    """`command` is what fetches it."""
    otherwise = f"where there is a network, type `{command}`, then run the same command again"
    # datasets' own exception for a repository that is missing, private or gated.
    refused = (DatasetNotFoundError,)
    return reached(f"dataset '{said.hub}'", f"datasets/{said.hub}", revision, otherwise, refused)


def _snapshot(said: Dataset, revision: str, *, offline: bool) -> Path:
    return Path(
        snapshot_download(
            str(said.hub),
            repo_type="dataset",
            revision=revision,
            allow_patterns=said.files,
            local_files_only=offline,
        )
    )


def _keep_rows(config: Config, name: str, revision: str, store: Store) -> None:
    """The first rows of a split as a file of the store, one JSON object a line."""
    said, key = config.datasets[name], rows_key(config, name, revision)
    with store.lock([key]):
        if store.has(key):
            return
        with _reached(said, said.revision, f"snakemake {dataset_file(name)} --cores 1"):
            rows = _first_rows(said, revision)
        if len(rows) < int(said.rows or 0):
            raise SaemakeError(
                f"config key 'datasets.{name}.rows' says {said.rows}; its split has {len(rows)}"
            )
        content = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        recipe = dataset_recipe(config, name).model_dump_json()
        store.put(key, {f"{said.split}.jsonl": content.encode(), RECIPE: recipe.encode()})


def _first_rows(said: Dataset, revision: str) -> list[dict[str, Any]]:
    dataset = patiently(
        lambda: load_dataset(str(said.hub), split=said.split, revision=revision, streaming=True)
    )
    try:
        return [row for row, _ in zip(every_row(dataset), range(int(said.rows or 0)), strict=False)]
    except FAILURES:
        raise
    except (ValueError, OSError) as error:
        raise SaemakeError(f"dataset '{said.hub}': {first_line(error)}") from None


def _place(
    config: Config, name: str, revision: str | None, store: Store, files: Iterable[str] = ()
) -> Path:
    """The folder of a dataset's files, from the cache if it has all of `files`, else fetched."""
    said = config.datasets[name]
    if said.rows is not None:
        return store.folder / rows_key(config, name, revision)
    if revision is None:
        return config.path_of(said)
    with contextlib.suppress(LocalEntryNotFoundError):
        folder = _snapshot(said, revision, offline=True)
        # A download that was killed leaves a folder with some of the files.
        if all((folder / file).is_file() for file in files):
            return folder
    # The cache was emptied, or this is another machine.
    patterns = "".join(f" --include '{pattern}'" for pattern in said.files)
    download = f"hf download {said.hub} --repo-type dataset --revision {revision}{patterns}"
    with _reached(said, revision, download):
        return patiently(lambda: _snapshot(said, revision, offline=False))


def _files(name: str, said: Dataset, folder: Path) -> list[Path]:
    """The files that a dataset is read from. No program is among them but the listed scripts."""
    if said.rows is not None:
        return [folder / f"{said.split}.jsonl"]
    return [
        path
        for path in matching_files(folder, said.files)
        if path.suffix != ".py" or SCRIPTS.get(name) == path.name
    ]


def rows_key(config: Config, name: str, revision: str | None) -> str:
    """The store's key of the rows of a dataset at a commit."""
    return digest([dataset_recipe(config, name).hash, revision])
