"""Is an artifact current, and if not, which fields of its recipe differ?

Exit status 0 where it is what the config asks for, 1 where it is not: missing, damaged, or made by
another recipe, whose differing fields are listed with their old and new values.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saemake import figures, names
from saemake.commands import STORE
from saemake.config import Config, lm_name
from saemake.errors import SaemakeError, build_again
from saemake.evaluation.evaluate import RECIPE, evaluation_key
from saemake.names import (
    BASELINES,
    EVALUATIONS,
    SAE_FILES,
    TABLES,
    SaeName,
    checkpoint_file,
)
from saemake.recipes import (
    EvaluationRecipe,
    checkpoint_evaluation_recipe,
    sae_evaluation_recipe,
    sae_recipe,
)
from saemake.store import Store, sha256
from saemake.training import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="+", help="under results/: an SAE's file, a table, a figure")


def run(config: Config, options: argparse.Namespace) -> int:
    status = 0
    for path in options.path:
        reasons = list(reasons_of(config, path))
        print(f"{path}: {'current' if not reasons else 'not current'}")
        for reason in reasons:
            print(f"  {reason}")
        status |= bool(reasons)
    return status


def reasons_of(config: Config, path: str) -> Iterator[str]:
    """Why `path` is not what the config asks for; nothing where it is.

    Raises SaemakeError where the path names no artifact of the config.
    """
    saes = names.saes_of(config, path)
    place = Path(path)
    if not place.exists():
        yield "it is not there"
    for sae in saes:
        found = list(sae_reasons(config, sae))
        for table in _tables(config, sae, place):
            found += _metrics_reasons(config, sae, table)
        yield from (reason if len(saes) == 1 else f"{sae}: {reason}" for reason in found)
    if place.name == "metrics.json" and place.exists():
        yield from _table_reasons(place, saes)
    if place.exists() and place.parent.name == saes[0].sparsity_name:
        yield from _file_reasons(config, place, saes[0])


def _tables(config: Config, sae: SaeName, place: Path) -> list[Path]:
    """The tables of an SAE that an artifact is, or is made of."""
    folder, checkpoints = Path(sae.folder), Path(sae.folder, "checkpoints")
    if "figures" in place.parts:
        training = place.stem in figures.TRAINING
        has = config.checkpoint_steps(sae.sweep.model, sae.sweep.architecture)
        own = [] if training and not has else [folder / "metrics.json"]
        return own + ([checkpoints / "metrics.json"] if training and has else [])
    if place.name.endswith("_latents.parquet"):
        return [folder / f"{place.name.removesuffix('_latents.parquet')}.json"]
    if place.name not in TABLES:
        return []
    return [checkpoints / place.name if place.parent == checkpoints else folder / place.name]


def _table_reasons(path: Path, saes: list[SaeName]) -> Iterator[str]:
    """Of a sweep's table: whether its rows are its SAEs' own metrics."""
    if path.parent != Path(saes[0].sweep.folder):
        return
    try:
        rows = json.loads(path.read_text())
        baselines = path.parents[2] / BASELINES
        folders = [*(Path(sae.folder) for sae in saes), baselines]
        wanted = [
            row for folder in folders for row in json.loads((folder / "metrics.json").read_text())
        ]
    except (OSError, ValueError) as error:
        yield f"it or a row of it cannot be read ({type(error).__name__})"
        return
    if rows != wanted:
        yield "its rows are not the metrics of the SAEs that the config names, and the baselines'"


def _file_reasons(config: Config, path: Path, sae: SaeName) -> Iterator[str]:
    """Of an SAE's file: whether it is what the store has."""
    recipe, store = sae_recipe(config, sae), Store(STORE, "saes")
    if path.name not in SAE_FILES or not store.holds(recipe.hash):
        return
    stored = store.read(recipe.hash, path.name)
    if path.name == "config.json":
        stored = files.named(lm_name(config, sae.sweep.model), stored)
    if path.read_bytes() != stored:
        yield f"it is not what the store has; {build_again(path)}"


def sae_reasons(config: Config, name: SaeName) -> Iterator[str]:
    """Why an SAE's ae.pt is not what its provenance says and the config asks for."""
    wanted = sae_recipe(config, name)
    folder = Path(name.folder)
    if not (folder / "ae.pt").exists():
        there = Store(STORE, "saes").holds(wanted.hash)
        yield f"{folder}/ae.pt is not there; " + (
            "the store has it: a run links it" if there else "a run trains it"
        )
        return
    try:
        provenance = files.read_provenance(folder)
    except SaemakeError as error:
        yield str(error)
        return
    found = sha256(folder / "ae.pt")
    if found != provenance["ae_sha256"]:
        yield (
            f"{folder}/ae.pt is damaged: its sha256 {found[:16]}... is not provenance.json's"
            f" {provenance['ae_sha256'][:16]}...; {build_again(folder / 'ae.pt')}"
        )
    yield from differences(provenance["recipe"], wanted.model_dump(mode="json"))


def _metrics_reasons(config: Config, name: SaeName, path: Path) -> Iterator[str]:
    """Of a table of an SAE or of its checkpoints: whether it judges the files that are there as the
    config asks."""
    evaluations = EVALUATIONS if path.name == "metrics.json" else (path.stem,)
    try:
        rows = {row["steps"]: row["evaluations"] for row in json.loads(path.read_text())}
        for evaluation in evaluations:
            for steps, file, wanted in _judged(config, name, path, evaluation):
                found = rows[steps][evaluation]
                if found["sha256"] != sha256(file):
                    yield f"{path} judges another {file.name}, of sha256 {found['sha256'][:16]}..."
                if found["recipe_hash"] != wanted.hash:
                    key = evaluation_key(found["recipe_hash"], found["sha256"])
                    stored = json.loads(Store(STORE, "evaluations").read(key, RECIPE))
                    at = f"evaluations.{evaluation}."
                    yield from differences(stored, wanted.model_dump(mode="json"), at)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{path} or how it was made cannot be read ({type(error).__name__})"


def _judged(
    config: Config, name: SaeName, path: Path, evaluation: str
) -> Iterator[tuple[int, Path, EvaluationRecipe]]:
    """What a table has rows of: steps trained, the file, the evaluation's recipe."""
    folder = Path(name.folder)
    if path.parent == folder:
        steps = config.steps_of(name.sweep.model)
        yield steps, folder / "ae.pt", sae_evaluation_recipe(config, name, evaluation)
        return
    for step in config.checkpoint_steps(name.sweep.model, name.sweep.architecture):
        recipe = checkpoint_evaluation_recipe(config, name, step, evaluation)
        yield step, folder / checkpoint_file(step), recipe


def differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """The fields that differ, as `place: old -> new`; lists are compared whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new)):
            yield from differences(old.get(key), new.get(key), f"{at}{key}.")
    elif old != new:
        yield f"{at.rstrip('.')}: {json.dumps(old)} -> {json.dumps(new)}"
