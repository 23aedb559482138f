"""Train SAEs again, in a temporary store, and compare their bytes with those under results/.

Exit status 0 if all are identical, or if the device or the software differs from provenance.json
and the metrics agree within the tolerances; 1 if an SAE differs.
"""

import argparse
import itertools
import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from saemake import evaluation
from saemake.base import gpus
from saemake.base.errors import SaemakeError, build_again
from saemake.base.store import Store, sha256
from saemake.commands import targets
from saemake.config.config import Config
from saemake.inputs import weights
from saemake.jobs import train
from saemake.judging import subjects
from saemake.judging.evaluate import evaluate, rows_of
from saemake.paths.grammar import saes_of
from saemake.paths.names import RESULTS, SAE_FILES, SaeName, Trained
from saemake.paths.sweeps import trained_with
from saemake.recipes.training import sae_recipe
from saemake.records import at_hand
from saemake.text.shards import Tokens
from saemake.training import files
from saemake.training.members import Stores

# Allowed differences of metrics if the device or software differs: absolute for loss recovered,
# relative for L0.
LOSS_RECOVERED_TOLERANCE = 0.005
L0_TOLERANCE = 0.02
# The evaluation whose metrics are compared.
EVALUATION = "dictionary_learning"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", nargs="+", help="a target of `saemake build`: SAEs, or what is made of them"
    )


def run(config: Config, options: argparse.Namespace) -> int:
    for path in options.path:
        if "checkpoints" in Path(path).parts:
            raise SaemakeError(f"{path}: name the SAE itself; checkpoints are not verified")
    named = [sae for path in options.path for sae in _saes(config, path, options.here)]
    saes = list(dict.fromkeys(named))
    asked = {f"models.{sae.model}.lm_devices": config.models[sae.model].lm_devices for sae in saes}
    key, count = max(asked.items(), key=lambda each: each[1], default=("", 1))
    gpus.claim(count, key)  # until the process ends
    same = True
    for trained, group in itertools.groupby(saes, key=lambda sae: trained_with(config, sae)):
        same &= _verify(config, trained, list(group))
    return 0 if same else 1


def _saes(config: Config, word: str, here: Path) -> list[SaeName]:
    path = targets.path_of(config, word, here, Path.cwd())
    return [sae for file in targets.files_of(config, path) for sae in saes_of(config, file)]


def _verify(config: Config, trained: Trained, saes: list[SaeName]) -> bool:
    _check_current(config, saes)
    with tempfile.TemporaryDirectory(prefix="saemake-verify-") as temporary:
        rebuilt = _rebuild(config, trained, saes, Path(temporary))
        same = [_compare(config, sae, rebuilt[sae], Path(temporary)) for sae in saes]
        return all(same)


def _check_current(config: Config, saes: Iterable[SaeName]) -> None:
    for sae in saes:
        if not Path(sae.folder, "ae.pt").exists():
            raise SaemakeError(
                f"{sae} is not built; build it first: saemake build {sae} (with the options of your"
                " run)"
            )
        for reason in _reasons(config, sae):
            raise SaemakeError(
                f"{sae} cannot be verified, since it is not what the config asks for: {reason}"
            )


def _reasons(config: Config, name: SaeName) -> Iterator[str]:
    """Why an SAE's ae.pt does not match its provenance or the config. Nothing if it does."""
    folder = Path(name.folder)
    try:
        provenance = files.read_provenance(folder)
    except SaemakeError as error:
        yield str(error)
        return
    if sha256(folder / "ae.pt") != provenance["ae_sha256"]:
        yield f"{folder}/ae.pt is damaged; {build_again(folder / 'ae.pt')}"
    recipe = sae_recipe(config, name)
    if provenance["recipe_hash"] != recipe.hash:
        yield from at_hand.differences(provenance["recipe"], recipe.model_dump(mode="json"))


def _rebuild(
    config: Config, trained: Trained, saes: list[SaeName], temporary: Path
) -> dict[SaeName, Path]:
    """Train the SAEs again. Returns the folder with each SAE's files."""
    stores, model = Stores.under(temporary / "store"), trained.model
    train.into(
        stores,
        config.model_copy(update={"logging": config.logging.without_loggers}),
        saes,
        f"verify {trained}",
        Path(RESULTS, model, "model.json"),
        _manifest(model, "train"),
        snapshot_seconds=math.inf,
        checkpoints=False,
    )
    folders = {sae: temporary / sae.own_part for sae in saes}
    for sae, folder in folders.items():
        recipe = sae_recipe(config, sae)
        stores.saes.link(recipe.hash, {file: folder / file for file in SAE_FILES})
    return folders


def _compare(config: Config, sae: SaeName, rebuilt: Path, temporary: Path) -> bool:
    old_sha256, new_sha256 = sha256(Path(sae.folder) / "ae.pt"), sha256(rebuilt / "ae.pt")
    if old_sha256 == new_sha256:
        print(f"{sae}: identical, sha256 {old_sha256}")
        return True
    others = _other_circumstances(
        files.read_provenance(Path(sae.folder)), files.read_provenance(rebuilt)
    )
    if not others:
        print(
            f"{sae}: DIFFERS on the same device and software: sha256 {old_sha256}, rebuilt"
            f" {new_sha256}"
        )
        return False
    print(f"{sae}: the bytes differ, and so do: {', '.join(others)}; comparing metrics")
    return _compare_metrics(config, sae, rebuilt, temporary)


def _other_circumstances(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """In words, the differences in all that the bytes depend on besides the recipe."""
    differing = [
        label
        for key, label in (("lm", "the files of the LM"), ("tokens_sha256", "the tokens"))
        if old.get(key) != new[key]
    ]
    if old["device"] != new["device"]:
        differing.append(f"device ({old['device']}, here {new['device']})")
    for name in (*files.BYTES_DEPEND_ON, "triton"):
        was, is_ = old["software"].get(name), new["software"].get(name)
        if was != is_:
            differing.append(f"{name} ({was}, here {is_})")
    return differing


def _compare_metrics(config: Config, sae: SaeName, rebuilt: Path, temporary: Path) -> bool:
    lm_weights, _ = weights.read(config, Path(RESULTS, sae.model, "model.json"))
    tokens = Tokens(_manifest(sae.model, EVALUATION))
    roles = evaluation.get(EVALUATION).roles
    assert roles is not None
    figures = {}
    for label, folder in (("old", Path(sae.folder)), ("new", rebuilt)):
        store = Store(temporary / label, "evaluations")
        judged = subjects.sae(config, sae, EVALUATION, folder)
        evaluate([judged], sae.hookpoint, lm_weights, tokens, store)
        row = rows_of(judged, tokens, store)[0]
        values = [row.figure(EVALUATION, name) for name in (roles.recovered, roles.l0)]
        # An undefined figure becomes NaN, which agrees with nothing.
        figures[label] = [math.nan if value is None else value for value in values]
    recovered = figures["new"][0] - figures["old"][0]
    l0 = figures["new"][1] / max(figures["old"][1], 1e-9) - 1
    agree = abs(recovered) <= LOSS_RECOVERED_TOLERANCE and abs(l0) <= L0_TOLERANCE
    print(
        f"  loss recovered {recovered:+.5f} (tolerance {LOSS_RECOVERED_TOLERANCE}),"
        f" L0 {l0:+.2%} (tolerance {L0_TOLERANCE:.0%}): {'agree' if agree else 'DIFFER'}"
    )
    return agree


def _manifest(model: str, use: str) -> Path:
    manifest = Path(RESULTS, model, "tokens", use, "manifest.json")
    if not manifest.exists():
        raise SaemakeError(f"{manifest} does not exist; build it: snakemake {manifest} --cores 1")
    return manifest
