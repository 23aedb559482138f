"""Check that all is on this machine which needs the network, and fetch again what is gone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saemake.base.files import write_json
from saemake.base.saying import say
from saemake.base.store import Store
from saemake.config.config import Config
from saemake.inputs import datasets, weights
from saemake.judging import environment
from saemake.paths.artifacts import DatasetFile, ModelFile, RepositoryFile, TokensFile
from saemake.paths.files import asks_judges, runs_sae_bench
from saemake.paths.grammar import parse
from saemake.paths.names import STORE
from saemake.text.shards import Tokens


def of_suite(config: Config, model: str, inputs: Sequence[str], output: str) -> None:
    """Check what a model's suite is made from, and write down its revisions. Makes SAE Bench's
    environment where the suite needs it, since that needs the package index.

    Raises SaemakeError where something is gone from this machine and cannot be fetched again.
    """
    if runs_sae_bench(config, model):
        environment.python(config.root)
    for name in asks_judges(config, model):
        say(f"{name} asks a judge: its job alone needs a network, which nothing fetched replaces")
    _check(config, inputs, output)


def of_published(config: Config, inputs: Sequence[str], output: str) -> None:
    """Check a model's published SAEs, and write down their revisions."""
    _check(config, inputs, output)


def _check(config: Config, inputs: Sequence[str], output: str) -> None:
    write_json(output, {path: _revision(config, Path(path)) for path in inputs})


def _revision(config: Config, path: Path) -> str | None:
    """The commit that a file was fetched from; None of a local one. Fetches again what the file
    describes, where the Hub's cache does not have it."""
    match parse(config, str(path)):
        case ModelFile():
            return _commit(weights.read(config, path)[1], "revision")
        case DatasetFile():
            described = datasets.read(config, path)
            datasets.place(config, described, Store(STORE, "datasets"))
            return _commit(described, "revision")
        case TokensFile():
            return _commit(Tokens(path).manifest, "text_revision")
        case RepositoryFile():
            return _commit(json.loads(path.read_text()), "commit")
        case _:
            return None


def _commit(described: dict[str, Any], key: str) -> str | None:
    commit: str | None = described[key]
    return commit
