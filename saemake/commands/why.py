"""Is an artifact current, and if not, which fields of its recipe differ?

Exit status 0 where it is what the config asks for, 1 where it is not: missing, damaged, or made by
another recipe, whose differing fields are listed with their old and new values.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saemake import names
from saemake.commands import STORE
from saemake.config import Config
from saemake.evaluation.evaluate import RECIPE, key_of
from saemake.names import SaeName
from saemake.recipes import evaluation_recipe, sae_recipe
from saemake.store import Store, sha256


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
    if not Path(path).exists():
        yield "it is not there"
    judged = Path(path).name == "metrics.json" or "figures" in Path(path).parts
    for sae in saes:
        for reason in (
            *_sae_reasons(config, sae),
            *(_metrics_reasons(config, sae) if judged else ()),
        ):
            yield reason if len(saes) == 1 else f"{sae}: {reason}"


def _sae_reasons(config: Config, name: SaeName) -> Iterator[str]:
    wanted = sae_recipe(config, name)
    folder = Path(name.folder)
    try:
        provenance = json.loads((folder / "provenance.json").read_text())
        found = sha256(folder / "ae.pt")
    except (OSError, ValueError) as error:
        there = Store(STORE, "saes").has(wanted.hash)
        yield f"{folder}/ae.pt or its provenance cannot be read ({type(error).__name__}); " + (
            "the store has it: a run links it" if there else "a run trains it"
        )
        return
    if found != provenance["ae_sha256"]:
        yield (
            f"{folder}/ae.pt is damaged: its sha256 {found[:16]}... is not provenance.json's"
            f" {provenance['ae_sha256'][:16]}...; delete {folder} and run"
        )
    yield from differences(provenance["recipe"], wanted.model_dump(mode="json"))


def _metrics_reasons(config: Config, name: SaeName) -> Iterator[str]:
    path = Path(name.folder) / "metrics.json"
    wanted = evaluation_recipe(config, name)
    try:
        metrics = json.loads(path.read_text())
        hash_, made_of = metrics["evaluation"]["recipe_hash"], metrics["sae_sha256"]
        if made_of != sha256(path.with_name("ae.pt")):
            yield f"{path} judges another ae.pt, of sha256 {made_of[:16]}..."
        if hash_ != wanted.hash:
            stored = Store(STORE, "evaluations").read(key_of(hash_, made_of), RECIPE)
            yield from differences(
                json.loads(stored), wanted.model_dump(mode="json"), "evaluation."
            )
    except (OSError, ValueError, KeyError) as error:
        yield f"{path} or how it was made cannot be read ({type(error).__name__})"


def differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """The fields that differ, as `place: old -> new`; lists are compared whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new)):
            yield from differences(old.get(key), new.get(key), f"{at}{key}.")
    elif old != new:
        yield f"{at.rstrip('.')}: {json.dumps(old)} -> {json.dumps(new)}"
