"""A pass: one run of the LM over the text trains every SAE of the job that the store lacks."""

import dataclasses
import hashlib
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from saemake import architectures, devices, progress
from saemake.activations.buffer import ActivationBuffer, norm_factor
from saemake.architectures import Architecture, Forward
from saemake.config import Logging
from saemake.errors import SaemakeError
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.recipes import SaeRecipe, checkpoint_key
from saemake.store import Store
from saemake.text.shards import Tokens
from saemake.training import files

log = logging.getLogger(__name__)
CHECKPOINT = "ae.pt"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a pass reads: the LM's files, its model.json, the text."""

    weights: Weights
    lm_description: dict[str, Any]
    tokens: Tokens


@dataclasses.dataclass(frozen=True)
class Stores:
    """Where a pass puts finished SAEs and checkpoints."""

    saes: Store
    checkpoints: Store

    @classmethod
    def under(cls, root: Path) -> Self:
        return cls(Store(root, "saes"), Store(root, "checkpoints"))


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An SAE to be had: its name for people, its recipe, and the steps to save it before."""

    name: str
    recipe: SaeRecipe
    checkpoint_steps: Sequence[int] = ()

    def is_in(self, stores: Stores) -> bool:
        keys = [checkpoint_key(self.recipe, step) for step in self.checkpoint_steps]
        return stores.saes.has(self.recipe.hash) and all(map(stores.checkpoints.has, keys))


@dataclasses.dataclass
class Member:
    """An SAE in training."""

    wanted: Wanted
    trainer: Architecture
    # The first step whose loss was not finite, or -1; on the device, so that no step waits for it.
    bad_step: Tensor
    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)
    checkpoint: Path | None = None

    @property
    def name(self) -> str:
        return self.wanted.name

    @property
    def recipe(self) -> SaeRecipe:
        return self.wanted.recipe

    def update(self, step: int, x_BD: Tensor) -> Forward:
        forward = self.trainer.update(step, x_BD)
        bad = ~forward.loss.detach().isfinite() & (self.bad_step < 0)
        self.bad_step.masked_fill_(bad, step)
        return forward

    def is_finite(self) -> bool:
        """Whether every weight is a number; asks the device."""
        weights = self.trainer.dictionary.state_dict().values()
        return all(bool(weight.isfinite().all()) for weight in weights)


def train_pass(
    wanted: Sequence[Wanted], inputs: Inputs, stores: Stores, *, report: Logging, label: str
) -> None:
    """Put every SAE that is wanted, with its checkpoints, into the stores, training those that they
    lack. The recipes are of one pass: they differ in architecture and what goes with it. `label`
    names the pass beside its progress.

    Raises SaemakeError where the loss or a weight of an SAE is not finite: nothing of that one is
    stored but earlier checkpoints; the others are.
    """
    with stores.saes.lock(sae.recipe.hash for sae in wanted):
        missing = [sae for sae in wanted if not sae.is_in(stores)]
        done = len(wanted) - len(missing)
        log.info("%d of %d SAEs are in the store; training %d", done, len(wanted), len(missing))
        if missing:
            _train(missing, inputs, stores, report, f"{label} ({len(missing)} SAEs)")


def _train(
    wanted: list[Wanted], inputs: Inputs, stores: Stores, report: Logging, label: str
) -> None:
    started = time.monotonic()
    shared = wanted[0].recipe
    training, steps = shared.training, shared.steps
    device = devices.choose(training.cpu_threads)
    lm = LanguageModel(inputs.weights, shared.layer, device, whole=False)
    batches = _batches(shared, lm, inputs.tokens)
    log.info("on %s; norm factor over %d batches", device, training.norm_batches)
    scale = norm_factor(batches, training.norm_batches)
    members = [
        Member(sae, _trainer(sae.recipe, lm.d_model, device), torch.tensor(-1, device=device))
        for sae in wanted
    ]
    faults: list[str] = []
    with progress.bar(steps * training.batch_tokens, label, "tok") as bar:
        for step in range(steps):
            x_BD = next(batches) / scale
            logged = step % report.every_steps == 0 or step == steps - 1
            for member in list(members):
                if step in member.wanted.checkpoint_steps:
                    _save_checkpoint(member, step, scale, stores.checkpoints)
                forward = member.update(step, x_BD)
                if not logged:
                    continue
                row = _row(member, step, x_BD, forward, report)
                log.info("%s, step %d of %d: %s", member.name, step, steps, row)
                member.rows.append(row)
                if int(member.bad_step) >= 0:
                    members.remove(member)
                    faults.append(_diverged(member))
                    bar.write(f"saemake: {faults[-1]}; the others go on", file=sys.stderr)
            if not members:
                break
            if logged:
                bar.set_postfix(loss=f"{members[-1].rows[-1]['loss']:.3g}", refresh=False)
            bar.update(training.batch_tokens)
    seconds = time.monotonic() - started
    for member in members:
        if member.is_finite():
            finished = _finished(member, inputs, scale, device, seconds)
            stores.saes.put(member.recipe.hash, finished)
        else:
            faults.append(f"{member.name}: a weight is not finite at the end{_last_good(member)}")
    log.info("trained %d SAEs in %.0f s", len(wanted) - len(faults), seconds)
    if faults:
        raise SaemakeError(
            f"{'; '.join(faults)}. Nothing of it is kept under its name; what else was trained is"
            " in the store. Lower training.learning_rate, or take it out of the sweep"
        )


def _save_checkpoint(member: Member, step: int, scale: float, store: Store) -> None:
    """Store the SAE as it is before `step`; one with weights that are no numbers is not kept."""
    if member.is_finite():
        key = checkpoint_key(member.recipe, step)
        store.put(key, {CHECKPOINT: files.sae_bytes(member.trainer.finished(scale))})
        member.checkpoint = store.folder / key / CHECKPOINT


def _diverged(member: Member) -> str:
    return f"{member.name}: the loss is not finite from step {int(member.bad_step)} on" + (
        _last_good(member)
    )


def _last_good(member: Member) -> str:
    if member.checkpoint is None:
        return f" (no checkpoint before it: architectures.{member.recipe.architecture}.checkpoints)"
    return f" (last good checkpoint: {member.checkpoint})"


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
def _row(
    member: Member, step: int, x_BD: Tensor, forward: Forward, report: Logging
) -> dict[str, float]:
    """One row of training.csv, from what the step has already computed."""
    x_BD, x_hat_BD = x_BD.float(), forward.x_hat_BD.float()
    unexplained = (x_BD - x_hat_BD).var(dim=0).sum() / x_BD.var(dim=0).sum()
    trainer = member.trainer
    return {
        "step": step,
        "tokens": (step + 1) * len(x_BD),
        "learning_rate": trainer.learning_rate(step),
        "loss": forward.loss.item(),
        **{part: value.item() for part, value in forward.parts.items()},
        "l0": (forward.f_BF > 0).sum(dim=-1).float().mean().item(),
        "frac_variance_explained": 1 - unexplained.item(),
        "dead": int((trainer.tokens_since_fired_F >= report.dead_after_tokens).sum()),
        **trainer.progress(),
    }


def _finished(
    member: Member, inputs: Inputs, scale: float, device: torch.device, seconds: float
) -> dict[str, bytes]:
    """The files of a trained SAE, which takes raw activations."""
    recipe = member.recipe
    weights = files.sae_bytes(member.trainer.finished(scale))
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
