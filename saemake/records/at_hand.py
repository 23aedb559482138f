"""What the files at hand were made by, and how that differs from what the config asks."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from saemake.base.store import Store
from saemake.config.config import Config
from saemake.paths.files import evaluation_in
from saemake.paths.names import SAE_FILES, STORE
from saemake.recipes import evaluation_key
from saemake.records import made
from saemake.records.asked import SUBJECT, recipes_of
from saemake.records.made import By

# Of an evaluation in the store, the file with its recipe.
RECIPE = "recipe.json"
# How many differing keys a plan's line names.
SHOWN = 3


def recipes_at(config: Config, path: str) -> dict[str, By] | None:
    """The recipes that a file was made by, as asked.recipes_of gives them: from its record, or
    where an older saemake made it, from what the file itself or its folder says. None where neither
    does."""
    record = made.read(path)
    if record is not None:
        return record.recipes
    try:
        return _carried(config, Path(path))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _carried(config: Config, path: Path) -> dict[str, By] | None:
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if path.name in SAE_FILES or path.suffix == ".pt":
        provenance = json.loads((folder / "provenance.json").read_text())
        by = By(hash=provenance["recipe_hash"], recipe=provenance["recipe"])
        return {_subject(folder): by}
    if evaluation := evaluation_in(config, path.name):
        table = path.with_name(f"{evaluation}.json")
        rows = json.loads(table.read_text())
        return {row["name"]: _judged_by(row["evaluations"][evaluation]) for row in rows}
    return None


def _subject(folder: Path) -> str:
    """An SAE's name: its folder without results/."""
    return "/".join(folder.parts[1:])


def _judged_by(said: dict[str, Any]) -> By:
    key = evaluation_key(said["recipe_hash"], said["sha256"])
    recipe = json.loads(Store(STORE, "evaluations").read(key, RECIPE))
    return By(hash=said["recipe_hash"], recipe=recipe)


def differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """The fields that differ, as `place: old -> new`; lists are compared whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new)):
            yield from differences(old.get(key), new.get(key), f"{at}{key}.")
    elif old != new:
        yield f"{at.rstrip('.')}: {json.dumps(old)} -> {json.dumps(new)}"


def differing(config: Config, path: str) -> dict[str, list[str]]:
    """How a file's recipes differ from the config's: by the name of what each is of, the fields.
    Only of what both have; of an evaluation without the SAE that it judges, which is a file of its
    own."""
    asked, before = recipes_of(config, path), recipes_at(config, path) or {}
    at = (
        f"evaluations.{evaluation}."
        if (evaluation := evaluation_in(config, PurePosixPath(path).name))
        else ""
    )
    found = {
        name: [
            line
            for line in differences(before[name].recipe, asked[name].recipe, at)
            if not line.startswith(f"{at}{SUBJECT}: ")
        ]
        for name in asked
        if name in before and before[name].hash != asked[name].hash
    }
    return {name: lines for name, lines in found.items() if lines}


def replaced(config: Config, outputs: Sequence[str], inputs: Sequence[str] = ()) -> str:
    """A line on how outputs at hand, which a job is about to replace, were made by another config:
    which keys, what becomes of the old ones, and how to have both. Empty where they were not.

    `inputs` are those of a job whose outputs are a function of them alone.
    """
    there = [path for path in map(str, outputs) if Path(path).exists()]
    found = {path: lines for path in there for lines in differing(config, path).values()}
    keys = list(dict.fromkeys(line for lines in found.values() for line in lines))
    if keys:
        more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        return _line(there, f"{'; '.join(keys[:SHOWN])}{more}", _kept(config, list(found)))
    if there and inputs and (record := made.read(there[0])) is not None:
        gone, new = set(record.inputs) - set(inputs), set(inputs) - set(record.inputs)
        said = [f"shows {_folders(gone)} too"] * bool(gone)
        said += [f"does not show {_folders(new)}"] * bool(new)
        return _line(there, " and ".join(said)) if said else ""
    return ""


def _line(there: list[str], differs: str, kept: str = "") -> str:
    names = there[0] if len(there) == 1 else f"{there[0]} and {len(there) - 1} more"
    both = "To keep both at hand, give one a model entry of its own name"
    return f"\n    replaces {names}, of another config ({differs}). {kept}{both}"


def _kept(config: Config, paths: list[str]) -> str:
    """What becomes of SAEs at hand."""
    saes = [path for path in paths if PurePosixPath(path).name == "ae.pt"]
    if not saes:
        return ""
    store = Store(STORE, "saes")
    kept = all(
        (store.folder / by.hash).is_dir()
        for path in saes
        for by in (recipes_at(config, path) or {}).values()
    )
    if kept:
        return f"The old {'SAE stays' if len(saes) == 1 else 'SAEs stay'} in the store. "
    return "The store does NOT have the old: move it away, or it is lost. "


def _folders(files: set[str]) -> str:
    return ", ".join(sorted({str(PurePosixPath(file).parent) for file in files}))
