"""Datasets that were fetched before, at their revisions, in place of those on the network."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from datasets import load_dataset

SCRIPTS = {"codeparrot/github-code": "github-code.py"}


def read_from(folders: Mapping[str, Path], *modules: ModuleType) -> None:
    """Let `load_dataset` of these modules read a dataset from its folder. Those of SCRIPTS are read
    by a loading script in it; no other script runs."""

    def load(name: str, *arguments: Any, **options: Any) -> Any:
        if name not in folders:
            raise LookupError(f"the dataset {name} is not among those that were fetched")
        folder = folders[name].resolve()
        if name not in SCRIPTS:
            options.pop("trust_remote_code", None)
        script = folder / SCRIPTS.get(name, "")
        return load_dataset(str(script), *arguments, **options)

    for module in modules:
        module.load_dataset = load
