"""What there is to judge: SAEs, their checkpoints and baselines under results/, published SAEs."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import torch

from saemake.activations import norms
from saemake.base.errors import SaemakeError
from saemake.base.store import Store, sha256
from saemake.config.config import Config
from saemake.evaluation import baselines
from saemake.evaluation.codecs import Codec
from saemake.evaluation.components import components_count
from saemake.judging.evaluate import Judged
from saemake.llm.hookpoint import RESID_POST, Hookpoint
from saemake.metrics import cautions
from saemake.metrics.rows import Subject
from saemake.paths import catalogue
from saemake.paths.catalogue import Entry
from saemake.paths.names import (
    BASELINES,
    CHECKPOINT,
    CHECKPOINTS,
    PUBLISHED,
    Baselines,
    Checkpoints,
    PublishedSweep,
    SaeName,
    Subjects,
    Sweep,
    checkpoint_file,
)
from saemake.paths.sweeps import members
from saemake.recipes.judging import (
    baseline_evaluation_recipes,
    checkpoint_evaluation_recipes,
    judged_baselines,
    published_evaluation_recipes,
    sae_evaluation_recipes,
)
from saemake.recipes.training import baselines_recipe, checkpoint_key, sae_recipe
from saemake.training import files


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of what a job judges: its path without `.json`, what is in it, and whether what was
    seen of each latent lies beside it."""

    stem: str
    judged: list[Judged]
    latents: bool = False


def tables_of(
    config: Config, subjects: Subjects, evaluation: str, d_model: int, store: Path
) -> list[Table]:
    """The tables that one job makes of all that it judges by an evaluation. `d_model` is the LM's
    width. Raises SaemakeError where a file of what is judged is damaged."""
    match subjects:
        case Sweep() | SaeName():
            return [
                Table(f"{name.folder}/{evaluation}", [sae(config, name, evaluation)], latents=True)
                for name in members(config, subjects)
            ]
        case PublishedSweep(sweep):
            entries = catalogue.load(config).of_sweep(sweep)
            return [
                Table(
                    f"{PUBLISHED}/{name}/{evaluation}",
                    [published(config, name, entry, evaluation)],
                    latents=True,
                )
                for name, entry in entries.items()
            ]
        case Checkpoints(name):
            kept = Store(store, "checkpoints")
            steps = config.checkpoint_steps(name.model, name.sweep.architecture)
            judged = [checkpoint(config, name, step, evaluation, kept) for step in steps]
            return [Table(f"{name.folder}/{CHECKPOINTS}/{evaluation}", judged)]
        case Baselines(model, hookpoint):
            fitted = Store(store, "baselines")
            judged = all_baselines(config, model, hookpoint, evaluation, d_model, fitted)
            return [Table(f"{subjects.folder}/{evaluation}", judged)]


def sae(config: Config, name: SaeName, evaluation: str, folder: Path | None = None) -> Judged:
    """An SAE of the config, in its own folder or another."""
    place = folder or Path(name.folder)
    steps = config.steps_of(name.sweep.model)
    return Judged(
        _trained(config, name, str(name), steps),
        sae_evaluation_recipes(config, name, evaluation),
        files.checked_sum(place, sae_recipe(config, name).hash),
        functools.partial(_load, config, name, place, "ae.pt"),
        place,
        "ae.pt",
        [
            *norms.warned(files.read_provenance(place)),
            *cautions.not_dropped(config, name.sweep.model, evaluation),
        ],
    )


def published(config: Config, name: SaeName, entry: Entry, evaluation: str) -> Judged:
    """A published SAE, as fetched. Raises SaemakeError where its file is damaged."""
    folder = Path(PUBLISHED, str(name))
    source = folder / "source.json"
    weights_sum = sha256(folder / "ae.pt")
    if weights_sum != json.loads(source.read_text())["sha256"]["ae.pt"]:
        raise SaemakeError(
            f"{folder}/ae.pt: damaged, its sha256 is not that of its source.json; delete {folder}"
            " and run the same command again"
        )
    subject = _trained(config, name, str(folder), None)
    return Judged(
        subject,
        published_evaluation_recipes(config, name, entry.hub_folder, evaluation),
        weights_sum,
        functools.partial(_load, config, name, folder, "ae.pt"),
        folder,
        "ae.pt",
    )


def checkpoint(
    config: Config, name: SaeName, step: int, evaluation: str, checkpoints: Store
) -> Judged:
    """An SAE of the config as it was before a step. Raises SaemakeError where the file is not the
    one in the store."""
    folder, file = Path(name.folder), checkpoint_file(step)
    key = checkpoint_key(sae_recipe(config, name), step)
    weights_sum = _stored_sum(folder / file, checkpoints, key, CHECKPOINT)
    return Judged(
        _trained(config, name, f"{name}/{file.removesuffix('.pt')}", step),
        checkpoint_evaluation_recipes(config, name, step, evaluation),
        weights_sum,
        functools.partial(_load, config, name, folder, file),
        folder,
        file,
    )


def all_baselines(
    config: Config,
    model: str,
    hookpoint: Hookpoint,
    evaluation: str,
    d_model: int,
    fitted: Store,
) -> list[Judged]:
    """The baselines of a site that an evaluation judges. Raises SaemakeError where their file is
    not the one in the store."""
    path = Path(Baselines(model, hookpoint).folder, baselines.FILE)
    key = baselines_recipe(config, model, hookpoint).hash
    content = _stored_sum(path, fitted, key, baselines.FILE)
    return [
        Judged(
            _baseline(model, hookpoint, name, d_model),
            baseline_evaluation_recipes(config, model, hookpoint, name, evaluation),
            content,
            functools.partial(_load_baseline, path, name),
            path.parent,
            path.name,
        )
        for name in judged_baselines(config, model, evaluation)
    ]


def _stored_sum(path: Path, store: Store, key: str, name: str) -> str:
    """sha256 of a file that is a link into the store."""
    file_sum = sha256(path)
    way_out = "delete it and run the same command again"
    if not store.holds(key):
        raise SaemakeError(f"{path}: the store has nothing of the config's recipe; {way_out}")
    if file_sum != store.sum_of(key, name):
        raise SaemakeError(f"{path}: damaged, it is not what the store has; {way_out}")
    return file_sum


def _load(
    config: Config, name: SaeName, folder: Path, file: str, device: torch.device, way: str | None
) -> Codec:
    width = config.latents(name.sweep.width)
    return files.load(folder, name.sweep.architecture, width, device, way, file)


def _load_baseline(path: Path, name: str, device: torch.device, way: str | None) -> Codec:
    return baselines.load_codec(path, name, device)


def _trained(config: Config, name: SaeName, label: str, steps: int | None) -> Subject:
    """`steps` None: not trained here."""
    sweep = name.sweep
    batch = config.training_of(sweep.model).batch_tokens
    said = _site(sweep.hookpoint) | ({} if name.seed is None else {"seed": name.seed})
    return Subject(
        name=label,
        model=sweep.model,
        layer=sweep.hookpoint.layer,
        architecture=sweep.architecture,
        width=sweep.width,
        latents=config.latents(sweep.width),
        sparsity=name.sparsity_name,
        **said,
        steps=steps,
        tokens=None if steps is None else steps * batch,
    )


def _site(hookpoint: Hookpoint) -> dict[str, Any]:
    """What a row says of its site, if it is not the default."""
    return {} if hookpoint.site == RESID_POST else {"site": hookpoint.site}


def _baseline(model: str, hookpoint: Hookpoint, name: str, d_model: int) -> Subject:
    architecture, _, sparsity = name.partition("/")
    return Subject(
        name=f"{model}/{hookpoint}/{BASELINES}/{name}",
        model=model,
        layer=hookpoint.layer,
        **_site(hookpoint),
        architecture=architecture,
        width=None,
        latents=components_count(name, d_model),
        sparsity=sparsity or None,
        steps=None,
        tokens=None,
    )
