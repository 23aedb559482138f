"""The recipes by which existing files were made, and how they differ from the config's."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from saemake.base.store import Store
from saemake.config.config import Config
from saemake.paths.files import evaluation_in
from saemake.paths.names import SAE_FILES, STORE
from saemake.recipes.judging import evaluation_key
from saemake.records import made
from saemake.records.asked import SUBJECT, recipes_of
from saemake.records.made import By

# The file with the recipe, in an evaluation's entry in the store.
RECIPE = "recipe.json"
# Number of differing keys that a line of a dry run names.
SHOWN = 3


def recipes_at(config: Config, path: str) -> dict[str, By] | None:
    """The recipes by which a file was made, in the form of asked.recipes_of. They come from its
    record, or from the file and its folder if an older saemake made it. None if neither has
    them."""
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


def _judged_by(circumstances: dict[str, Any]) -> By:
    key = evaluation_key(circumstances["recipe_hash"], circumstances["sha256"])
    recipe = json.loads(Store(STORE, "evaluations").read(key, RECIPE))
    return By(hash=circumstances["recipe_hash"], recipe=recipe)


def differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """The fields that differ, as `field: old -> new`. `at` is the prefix of the field names. Lists
    are compared as wholes."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new)):
            yield from differences(old.get(key), new.get(key), f"{at}{key}.")
    elif old != new:
        yield f"{at.rstrip('.')}: {json.dumps(old)} -> {json.dumps(new)}"


def differing(config: Config, path: str) -> dict[str, list[str]]:
    """How a file's recipes differ from the config's: the differing fields, by recipe name. Compares
    only recipes that both have. Of an evaluation's recipe it leaves out the judged SAE, which is a
    file of its own."""
    asked, before = recipes_of(config, path), recipes_at(config, path) or {}
    at = (
        f"evaluations.{evaluation}."
        if (evaluation := evaluation_in(config, PurePosixPath(path).name))
        else ""
    )
    differing_lines = {
        name: [
            line
            for line in differences(before[name].recipe, asked[name].recipe, at)
            if not line.startswith(f"{at}{SUBJECT}: ")
        ]
        for name in asked
        if name in before and before[name].hash != asked[name].hash
    }
    return {name: lines for name, lines in differing_lines.items() if lines}


def replaced(config: Config, outputs: Sequence[str], inputs: Sequence[str] = ()) -> str:
    """A line for existing outputs that a job will replace, if another config made them: the
    differing keys, what becomes of the old files, and how to keep both. Empty if the config is the
    same.

    `inputs` are the job's inputs if its outputs depend on them alone.
    """
    existing = [path for path in map(str, outputs) if Path(path).exists()]
    lines_by_path = {path: lines for path in existing for lines in differing(config, path).values()}
    keys = list(dict.fromkeys(line for lines in lines_by_path.values() for line in lines))
    if keys:
        more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        differs = f"{'; '.join(keys[:SHOWN])}{more}"
        return _line(existing, differs, _kept(config, list(lines_by_path)))
    if existing and inputs and (record := made.read(existing[0])) is not None:
        gone, new = set(record.inputs) - set(inputs), set(inputs) - set(record.inputs)
        clauses = [f"shows {_folders(gone)} too"] * bool(gone)
        clauses += [f"does not show {_folders(new)}"] * bool(new)
        return _line(existing, " and ".join(clauses)) if clauses else ""
    return ""


def _line(existing: list[str], differs: str, kept: str = "") -> str:
    names = existing[0] if len(existing) == 1 else f"{existing[0]} and {len(existing) - 1} more"
    both = "To keep both at hand, give one a model entry of its own name"
    return f"\n    replaces {names}, of another config ({differs}). {kept}{both}"


def _kept(config: Config, paths: list[str]) -> str:
    """A sentence on what becomes of the SAEs that are replaced."""
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
