"""A pass: one run of the LM over the text trains every SAE of the job that the store lacks."""

import dataclasses
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from saemake import architectures, devices, progress
from saemake.activations.buffer import ActivationBuffer, norm_factor
from saemake.architectures import Architecture, Forward
from saemake.errors import SaemakeError
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.recipes import SaeRecipe, digest
from saemake.store import Store
from saemake.text.shards import Tokens
from saemake.training import files

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Member:
    """One SAE of a pass: its name for people, its recipe, and while it trains its state."""

    name: str
    recipe: SaeRecipe
    trainer: Architecture
    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)


def train_pass(
    recipes: dict[str, SaeRecipe],
    *,
    weights: Weights,
    lm_name: str,
    lm_description: dict[str, Any],
    tokens: Tokens,
    store: Store,
    log_every_steps: int,
    label: str,
) -> None:
    """Put every SAE of `recipes` (by the name that people read) into the store, training those that
    it lacks. The recipes are of one pass: they differ in architecture and what goes with it.

    Raises SaemakeError where a loss is not finite; nothing is stored then.
    """
    pass_key = digest(sorted(recipe.hash for recipe in recipes.values()))
    with store.lock(pass_key):
        missing = {name: r for name, r in recipes.items() if not store.has(r.hash)}
        done = len(recipes) - len(missing)
        log.info("%d of %d SAEs are in the store; training %d", done, len(recipes), len(missing))
        if missing:
            label = f"{label} ({len(missing)} SAEs)"
            _train(missing, weights, lm_name, lm_description, tokens, store, log_every_steps, label)


def _train(
    recipes: dict[str, SaeRecipe],
    weights: Weights,
    lm_name: str,
    lm_description: dict[str, Any],
    tokens: Tokens,
    store: Store,
    log_every_steps: int,
    label: str,
) -> None:
    started = time.monotonic()
    shared = next(iter(recipes.values()))
    training, steps = shared.training, shared.steps
    device = devices.choose(training.cpu_threads)
    lm = LanguageModel(weights, shared.layer, device, whole=False)
    batches = _batches(shared, lm, tokens)
    log.info("%s on %s; norm factor over %d batches", lm_name, device, training.norm_batches)
    scale = norm_factor(batches, training.norm_batches)
    members = [
        Member(name, recipe, _trainer(recipe, lm.d_model, device))
        for name, recipe in recipes.items()
    ]
    with progress.bar(steps * training.batch_tokens, label, "tok") as bar:
        for step in range(steps):
            x_BD = next(batches) / scale
            logged = step % log_every_steps == 0 or step == steps - 1
            for member in members:
                forward = member.trainer.update(step, x_BD)
                if logged:
                    member.rows.append(_row(member, step, x_BD, forward))
            if logged:
                shown = members[-1].rows[-1]
                log.info("step %d of %d: %s", step, steps, shown)
                bar.set_postfix(fve=f"{shown['frac_variance_explained']:.3f}", refresh=False)
            bar.update(training.batch_tokens)
    seconds = time.monotonic() - started
    for member in members:
        _store(member, scale, lm_name, lm_description, tokens, store, device, seconds)
    log.info("trained %d SAEs in %.0f s", len(members), seconds)


def _batches(recipe: SaeRecipe, lm: LanguageModel, tokens: Tokens) -> Iterator[Tensor]:
    """Batches [batch, D] in the dtype of autocast: the shuffled activations of the text."""
    training = recipe.training
    buffer = ActivationBuffer(
        tokens.contexts(recipe.llm_batch_contexts),
        lm.capture,
        d_model=lm.d_model,
        capacity_tokens=recipe.buffer_tokens,
        batch_tokens=training.batch_tokens,
        seed=training.seed,
        dtype=getattr(torch, training.autocast),
        device=lm.device,
    )
    while True:
        yield buffer.batch()


def _trainer(recipe: SaeRecipe, d_model: int, device: torch.device) -> Architecture:
    kind = architectures.get(recipe.architecture)
    return kind(
        d_model=d_model,
        width=recipe.width,
        sparsity=recipe.sparsity,
        settings=kind.Settings.model_validate({**recipe.settings, "sweep": [recipe.sparsity]}),
        training=recipe.training,
        steps=recipe.steps,
        device=device,
    )


@torch.no_grad()
def _row(member: Member, step: int, x_BD: Tensor, forward: Forward) -> dict[str, float]:
    """One row of training.csv, from what the step has already computed."""
    x_BD, x_hat_BD = x_BD.float(), forward.x_hat_BD.float()
    unexplained = (x_BD - x_hat_BD).var(dim=0).sum() / x_BD.var(dim=0).sum()
    row = {
        "step": step,
        "tokens": (step + 1) * len(x_BD),
        "learning_rate": member.trainer.optimizer.param_groups[0]["lr"],
        "loss": forward.loss.item(),
        **{part: value.item() for part, value in forward.parts.items()},
        "l0": (forward.f_BF > 0).sum(dim=-1).float().mean().item(),
        "frac_variance_explained": 1 - unexplained.item(),
    }
    if not math.isfinite(row["loss"]):
        raise SaemakeError(
            f"{member.name}: the loss is {row['loss']} at step {step}; nothing is saved. Lower"
            " training.learning_rate, or look at training.csv's columns in the log"
        )
    return row


def _store(
    member: Member,
    scale: float,
    lm_name: str,
    lm_description: dict[str, Any],
    tokens: Tokens,
    store: Store,
    device: torch.device,
    seconds: float,
) -> None:
    dictionary, recipe = member.trainer.dictionary, member.recipe
    config = files.config_json(member.trainer, recipe, lm_name, scale)
    dictionary.scale_biases(scale)
    if not all(value.isfinite().all() for value in dictionary.parameters()):
        raise SaemakeError(f"{member.name}: a weight is not finite at the end; nothing is saved")
    more = {
        "name": member.name,
        "lm": lm_description,
        "tokens_sha256": [shard["sha256"] for shard in tokens.manifest["shards"]],
        "text_revision": tokens.manifest["text_revision"],
    }
    content = {
        "ae.pt": files.sae_bytes(dictionary),
        "config.json": config.encode(),
        "training.csv": files.training_csv(member.rows).encode(),
    }
    content["provenance.json"] = files.provenance_json(recipe, device, seconds, more).encode()
    store.put(recipe.hash, content)
