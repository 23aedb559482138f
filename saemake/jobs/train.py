"""Train the SAEs of a job that the store lacks, and link all of them under results/."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch

from saemake.base import devices
from saemake.base import files as whole
from saemake.base.errors import SaemakeError
from saemake.base.saying import say
from saemake.config.config import Config, lm_name
from saemake.inputs import weights
from saemake.jobs import passes
from saemake.llm.shape import Shape
from saemake.paths.names import (
    CHECKPOINT,
    RESULTS,
    SAE_FILES,
    STORE,
    SaeName,
    Trained,
    checkpoint_file,
)
from saemake.paths.starts import start_of
from saemake.paths.stores import shared_store
from saemake.paths.sweeps import members
from saemake.plan import memory
from saemake.plan.passes import fewest
from saemake.recipes.kinds import SaeRecipe
from saemake.recipes.training import checkpoint_key, sae_recipe
from saemake.text.shards import Tokens
from saemake.training import files
from saemake.training.members import Start, Stores, Wanted
from saemake.training.train import Conduct, FailedSaesError, Inputs, train_pass

log = logging.getLogger(__name__)
GIB = 2**30


def train(config: Config, trained: Trained, model: Path, tokens: Path) -> None:
    """Train the SAEs of a job that the store lacks, and what else is to train on the same run of
    the LM. Link the job's own files, and their checkpoints.

    `model` is the model.json of their LM, `tokens` the manifest of the training text. Raises
    SaemakeError as train_pass does.
    """
    saes, stores = members(config, trained), Stores.under(STORE, shared_store(config))
    seconds = config.snapshots.every_seconds
    for group in passes.trained_with(config, trained):
        # Held until what is its own is linked, so that nobody prunes it in between.
        with stores.saes.lock(sae_recipe(config, sae).hash for sae in group):
            label = f"train {passes.name(group, trained)}"
            try:
                into(stores, config, group, label, model, tokens, snapshot_seconds=seconds)
            except FailedSaesError as error:
                if {sae_recipe(config, sae).hash for sae in saes} & set(error.faults):
                    raise
                # Their own job tries again, and fails.
                say(f"{label}: {error}")
            for sae in group:
                if sae in saes:
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
            str(sae.sweep),
            _start(config, sae),
        )
        for sae in saes
    ]
    lm_weights, description = weights.read(config, model)
    inputs = Inputs(lm_weights, description, Tokens(tokens))
    conduct = Conduct(
        label,
        config.logging,
        snapshot_seconds,
        announcing(config, saes[0].model, label),
        config.passes.devices_per_pass,
        spreading(config, saes[0].model),
    )
    stores.bring(wanted)
    for part in _parts(config, saes[0].model, label, wanted, stores):
        train_pass(part, inputs, stores, conduct)


def _start(config: Config, sae: SaeName) -> Start | None:
    """The SAE that another begins with, which lies under results/ or published/."""
    source = start_of(config, sae)
    if source is None:
        return None
    folder = Path(source.top, str(source.sae))
    return Start(folder, sae_recipe(config, source.sae).hash if source.top == RESULTS else None)


def _parts(
    config: Config, model: str, label: str, wanted: Sequence[Wanted], stores: Stores
) -> list[Sequence[Wanted]]:
    """What one pass trains after the other: all at once, unless a GPU is too small for it."""
    shape = weights.shape_if_known(config, model) if torch.cuda.is_available() else None
    if shape is None:
        return [wanted]
    missing = [sae for sae in wanted if not sae.is_in(stores)]
    if not missing:
        return [wanted]
    rooms, recipes = _free(_gpus(config, model)), [sae.recipe for sae in missing]
    places = parts_that_fit(recipes, shape, rooms, config.passes.devices_per_pass)
    room = "+".join(f"{each / GIB:.1f}" for each in rooms)
    if places is None:
        needed = max(memory.of_training([recipe], shape).on_gpu for recipe in recipes)
        raise SaemakeError(
            f"{label}: one SAE takes at most about {needed / GIB:.1f} GiB of a GPU, and"
            f" {room} GiB are free: end what else uses the GPU, take a larger one, raise"
            f" models.{model}.lm_devices, or lower models.{model}.buffer_tokens or the width"
        )
    parts: list[Sequence[Wanted]] = [missing[first:last] for first, last in pairwise(places)]
    if len(parts) > 1:
        say(
            f"{label}: {len(missing)} SAEs do not fit into the {room} GiB that are free;"
            f" at most {max(map(len, parts))} train at a time, and the LM runs again for each part"
        )
    return parts


def parts_that_fit(
    recipes: Sequence[SaeRecipe], shape: Shape, rooms: Sequence[int], devices: int = 1
) -> list[int] | None:
    """Where to cut SAEs into passes that fit into so many bytes of each GPU of a pass, with SAEs on
    the first `devices` of these (see `fewest`)."""
    return fewest(
        len(recipes),
        lambda first, last: memory.spread(recipes[first:last], shape, rooms, devices) is not None,
    )


def _gpus(config: Config, model: str) -> list[torch.device]:
    """Those of a pass: its SAEs and the LM are on the first of the same."""
    first, lm_devices = torch.device("cuda"), config.models[model].lm_devices
    of_saes = devices.of_pass(first, config.passes.devices_per_pass)
    return max(of_saes, devices.of_lm(first, lm_devices, model), key=len)


def _free(gpus: Sequence[torch.device]) -> list[int]:
    return [torch.cuda.mem_get_info(gpu)[0] for gpu in gpus]


def spreading(
    config: Config, model: str
) -> Callable[[Sequence[SaeRecipe], Sequence[torch.device]], Sequence[int]]:
    """Says on which device of a pass each SAE trains, by the memory that is free now, before the LM
    is loaded."""
    several = torch.cuda.is_available() and config.passes.devices_per_pass > 1
    shape = weights.shape_if_known(config, model) if several else None
    rooms = _free(_gpus(config, model)) if several else []

    def places(recipes: Sequence[SaeRecipe], on: Sequence[torch.device]) -> Sequence[int]:
        found = None if shape is None else memory.spread(recipes, shape, rooms, len(on))
        return found or [number % len(on) for number in range(len(recipes))]

    return places


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
    if line := devices.unused_gpu():
        say(line)
    shape = weights.shape_if_known(config, model)
    if shape is None:
        return
    needed = memory.of_training([sae.recipe for sae in wanted], shape)
    bytes_needed = needed.on_gpu if device.type == "cuda" else needed.on_cpu
    words = f"{label}: at most about {bytes_needed / GIB:.1f} GiB of memory, on {device}"
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        words += f", where {free / GIB:.1f} GiB are free"
        if others := needed.on_other_gpus:
            words += f", and for the LM {max(others) / GIB:.1f} GiB of each other GPU"
    log.info("%s", words)
    say(words)


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
