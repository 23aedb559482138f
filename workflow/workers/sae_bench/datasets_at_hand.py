"""Datasets that were fetched before, at their revisions, in place of those on the network."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from datasets import load_dataset


def read_from(folders: Mapping[str, Path], *modules: ModuleType) -> None:
    """Let `load_dataset` of these modules read a dataset from its folder. One with a loading script
    is read by it: the folder has a file `{name}.py`."""

    def load(name: str, *arguments: Any, **options: Any) -> Any:
        if name not in folders:
            raise LookupError(f"the dataset {name} is not among those that were fetched")
        folder = folders[name].resolve()
        script = folder / f"{name.rpartition('/')[2]}.py"
        return load_dataset(str(script if script.exists() else folder), *arguments, **options)

    for module in modules:
        module.load_dataset = load
