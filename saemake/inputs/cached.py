"""What the Hub's cache has of files that were fetched. Uses no network, and imports little: it is
asked when the Snakefile is parsed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from saemake.config.config import Config
from saemake.paths.artifacts import DatasetFile, ModelFile
from saemake.paths.grammar import parse


def gone(config: Config, paths: Iterable[str]) -> list[str]:
    """Those of the model.json files, and of the files under datasets/, whose own files on the Hub
    are no longer all in the cache, or not in the cache of this machine. A path that does not exist
    is not among them."""
    return [path for path in paths if Path(path).exists() and not _complete(config, path)]


def _complete(config: Config, path: str) -> bool:
    match parse(config, path):
        case ModelFile(model):
            hub, kind, files = config.models[model].hub, "model", "sha256"
        case DatasetFile(dataset) if config.datasets[dataset].rows is None:
            hub, kind, files = config.datasets[dataset].hub, "dataset", "files"
        case _:
            return True
    if hub is None:
        return True
    try:
        described: dict[str, Any] = json.loads(Path(path).read_text())
        commit, names = described["revision"], [*described[files]]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return all(
        isinstance(try_to_load_from_cache(hub, name, revision=commit, repo_type=kind), str)
        for name in names
    )
