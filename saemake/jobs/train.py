"""Train the SAEs of a job that the store lacks, and link all of them under results/."""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from saemake.base import files as whole
from saemake.config.config import Config, lm_name
from saemake.inputs import weights
from saemake.paths.names import CHECKPOINT, SAE_FILES, STORE, SaeName, Trained, checkpoint_file
from saemake.paths.sweeps import members
from saemake.plan import memory
from saemake.recipes import checkpoint_key, sae_recipe
from saemake.text.shards import Tokens
from saemake.training import files
from saemake.training.members import Stores, Wanted
from saemake.training.train import Conduct, Inputs, train_pass

log = logging.getLogger(__name__)


def train(config: Config, trained: Trained, model: Path, tokens: Path) -> None:
    """Train the SAEs of one pass that the store lacks, and link the files of all of them, and their
    checkpoints.

    `model` is the model.json of their LM, `tokens` the manifest of the training text. Raises
    SaemakeError as train_pass does.
    """
    saes, stores = members(config, trained), Stores.under(STORE)
    # Held until all is linked, so that nobody prunes it in between.
    with stores.saes.lock(sae_recipe(config, sae).hash for sae in saes):
        label, seconds = f"train {trained}", config.snapshots.every_seconds
        into(stores, config, saes, label, model, tokens, snapshot_seconds=seconds)
        for sae in saes:
            _link(config, sae, stores)


def into(
    stores: Stores,
    config: Config,
    saes: Sequence[SaeName],
    label: str,
    model: Path,
    tokens: Path,
    *,
    snapshot_seconds: float,
    checkpoints: bool = True,
) -> None:
    """Train SAEs of one pass into `stores`, those that these lack; nothing is linked."""
    wanted = [
        Wanted(
            str(sae),
            sae_recipe(config, sae),
            checkpoint_steps(config, sae) if checkpoints else (),
        )
        for sae in saes
    ]
    lm_weights, description = weights.read(config, model)
    train_pass(
        wanted,
        Inputs(lm_weights, description, Tokens(tokens)),
        stores,
        Conduct(label, config.logging, snapshot_seconds, announcing(config, saes[0].model, label)),
    )


def checkpoint_steps(config: Config, sae: SaeName) -> list[int]:
    """The steps that the config asks to save an SAE before."""
    return config.checkpoint_steps(sae.sweep.model, sae.sweep.architecture)


def announcing(
    config: Config, model: str, label: str
) -> Callable[[Sequence[Wanted], torch.device], None]:
    """Says, at a pass's start, how much memory it takes at its largest."""
    return partial(_announce, config, model, label)


def _announce(
    config: Config, model: str, label: str, wanted: Sequence[Wanted], device: torch.device
) -> None:
    """Says also, on a GPU, how much is free. A step that lists few active latents takes less: the
    dense step is counted."""
    shape = weights.shape_if_known(config, model)
    if shape is None:
        return
    needed = memory.of_training(wanted[0].recipe, shape, len(wanted))
    bytes_needed = needed.on_gpu if device.type == "cuda" else needed.on_cpu
    words = f"{label}: at most about {bytes_needed / 2**30:.1f} GiB of memory, on {device}"
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        words += f", where {free / 2**30:.1f} GiB are free"
    log.info("%s", words)
    print(f"saemake: {words}", file=sys.stderr, flush=True)


def _link(config: Config, sae: SaeName, stores: Stores) -> None:
    recipe, folder = sae_recipe(config, sae), Path(sae.folder)
    linked = [file for file in SAE_FILES if file != "config.json"]
    stores.saes.link(recipe.hash, {file: folder / file for file in linked})
    stored = stores.saes.read(recipe.hash, "config.json")
    content = files.named(lm_name(config, sae.sweep.model), stored)
    whole.write(f"{sae.folder}/config.json", content)
    for step in checkpoint_steps(config, sae):
        place = folder / checkpoint_file(step)
        stores.checkpoints.link(checkpoint_key(recipe, step), {CHECKPOINT: place})
