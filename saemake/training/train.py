"""A pass: one run of the LM over the text trains every SAE of the job that the store lacks."""

import dataclasses
import hashlib
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
from saemake.recipes import SaeRecipe
from saemake.store import Store
from saemake.text.shards import Tokens
from saemake.training import files

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a pass reads: the LM's files, its model.json, the text."""

    weights: Weights
    lm_description: dict[str, Any]
    tokens: Tokens


@dataclasses.dataclass
class Member:
    """One SAE of a pass: its name for people, its recipe, and while it trains its state."""

    name: str
    recipe: SaeRecipe
    trainer: Architecture
    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)


def train_pass(
    recipes: dict[str, SaeRecipe], inputs: Inputs, store: Store, *, log_every_steps: int, label: str
) -> None:
    """Put every SAE of `recipes` (by the name that people read) into the store, training those that
    it lacks. The recipes are of one pass: they differ in architecture and what goes with it.
    `label` names the pass beside its progress.

    Raises SaemakeError where the loss or a weight of an SAE is not finite: nothing of that one is
    stored; the others are.
    """
    with store.lock(recipe.hash for recipe in recipes.values()):
        missing = {name: r for name, r in recipes.items() if not store.has(r.hash)}
        done = len(recipes) - len(missing)
        log.info("%d of %d SAEs are in the store; training %d", done, len(recipes), len(missing))
        if missing:
            _train(missing, inputs, store, log_every_steps, f"{label} ({len(missing)} SAEs)")


def _train(
    recipes: dict[str, SaeRecipe], inputs: Inputs, store: Store, log_every_steps: int, label: str
) -> None:
    started = time.monotonic()
    shared = next(iter(recipes.values()))
    training, steps = shared.training, shared.steps
    device = devices.choose(training.cpu_threads)
    lm = LanguageModel(inputs.weights, shared.layer, device, whole=False)
    batches = _batches(shared, lm, inputs.tokens)
    log.info("on %s; norm factor over %d batches", device, training.norm_batches)
    scale = norm_factor(batches, training.norm_batches)
    members = [
        Member(name, recipe, _trainer(recipe, lm.d_model, device))
        for name, recipe in recipes.items()
    ]
    faults: list[str] = []
    with progress.bar(steps * training.batch_tokens, label, "tok") as bar:
        for step in range(steps):
            x_BD = next(batches) / scale
            logged = step % log_every_steps == 0 or step == steps - 1
            for member in list(members):
                forward = member.trainer.update(step, x_BD)
                if logged:
                    row = _row(member, step, x_BD, forward)
                    log.info("%s, step %d of %d: %s", member.name, step, steps, row)
                    member.rows.append(row)
                    if not math.isfinite(row["loss"]):
                        members.remove(member)
                        faults.append(f"{member.name}: the loss is {row['loss']} at step {step}")
            if not members:
                break
            if logged:
                bar.set_postfix(loss=f"{members[-1].rows[-1]['loss']:.3g}", refresh=False)
            bar.update(training.batch_tokens)
    seconds = time.monotonic() - started
    for member in members:
        if all(value.isfinite().all() for value in member.trainer.dictionary.parameters()):
            store.put(member.recipe.hash, _finished(member, inputs, scale, device, seconds))
        else:
            faults.append(f"{member.name}: a weight is not finite at the end")
    log.info("trained %d SAEs in %.0f s", len(recipes) - len(faults), seconds)
    if faults:
        raise SaemakeError(
            f"{'; '.join(faults)}. Nothing of it is kept; what else was trained is in the store."
            " Lower training.learning_rate, or take it out of the sweep"
        )


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
    return {
        "step": step,
        "tokens": (step + 1) * len(x_BD),
        "learning_rate": member.trainer.optimizer.param_groups[0]["lr"],
        "loss": forward.loss.item(),
        **{part: value.item() for part, value in forward.parts.items()},
        "l0": (forward.f_BF > 0).sum(dim=-1).float().mean().item(),
        "frac_variance_explained": 1 - unexplained.item(),
    }


def _finished(
    member: Member, inputs: Inputs, scale: float, device: torch.device, seconds: float
) -> dict[str, bytes]:
    """The files of a trained SAE; its dictionary then takes raw activations."""
    dictionary, recipe = member.trainer.dictionary, member.recipe
    dictionary.scale_biases(scale)
    weights = files.sae_bytes(dictionary)
    config = files.config_json(member.trainer, recipe, scale)
    manifest = inputs.tokens.manifest
    more = {
        "ae_sha256": hashlib.sha256(weights).hexdigest(),
        "lm": {key: value for key, value in inputs.lm_description.items() if key != "model"},
        "tokens_sha256": [shard["sha256"] for shard in manifest["shards"]],
        "text_revision": manifest["text_revision"],
    }
    return {
        "ae.pt": weights,
        "config.json": config.encode(),
        "training.csv": files.training_csv(member.rows).encode(),
        "provenance.json": files.provenance_json(recipe, device, seconds, more).encode(),
    }
