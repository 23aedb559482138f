"""The SAEs of a pass: which SAEs to train, and the state of each while it trains."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from saemake import architectures
from saemake.architectures import loading
from saemake.architectures.trainer import Dictionary, Forward, Trainer
from saemake.base.errors import SaemakeError
from saemake.base.store import Shared, Store, sha256
from saemake.config.sections import Logging
from saemake.paths.names import CHECKPOINT, OF_SAE
from saemake.recipes.kinds import SaeRecipe
from saemake.recipes.training import checkpoint_key
from saemake.training import files
from saemake.training.snapshots import Snapshots

WEIGHTS = "ae.pt"


@dataclasses.dataclass(frozen=True)
class Stores:
    """The stores of a pass: for finished SAEs, for checkpoints, and for the snapshots from which it
    resumes after a kill."""

    saes: Store
    checkpoints: Store
    snapshots: Snapshots

    @classmethod
    def under(cls, root: Path, remote: Shared | None = None) -> Self:
        return cls(
            Store(root, "saes", remote),
            Store(root, "checkpoints", remote),
            Snapshots(Store(root, "snapshots")),
        )

    def bring(self, wanted: Sequence["Wanted"]) -> None:
        """Fetch SAEs that are missing here from the shared store, with their checkpoints. The
        checkpoints of an SAE that was made here are not fetched: another device may have made them.
        """
        missing = [sae for sae in wanted if not self.saes.has(sae.recipe.hash)]
        self.saes.bring({sae.recipe.hash: sae.recipe.hash for sae in missing})
        self.checkpoints.bring(
            {
                checkpoint_key(sae.recipe, step): sae.recipe.hash
                for sae in missing
                if self.saes.has(sae.recipe.hash)
                for step in sae.checkpoint_steps
            }
        )


@dataclasses.dataclass(frozen=True)
class Start:
    """The folder of the SAE that another begins with, and the hash of its recipe; None of a
    published one."""

    folder: Path
    recipe_hash: str | None

    def read(self) -> tuple[Dictionary, dict[str, Any]]:
        """The SAE, for raw activations, and what provenance.json says of it: its sha256, and its
        recipe's hash or where on the Hub it is. Raises SaemakeError where its files are missing,
        damaged, or of another recipe."""
        path = self.folder / WEIGHTS
        if not path.is_file():
            raise SaemakeError(f"{path} is not there, and training begins with it; build it first")
        if self.recipe_hash is not None:
            files.checked_sum(self.folder, self.recipe_hash)
            place = {"recipe_hash": self.recipe_hash}
        else:
            source = json.loads((self.folder / "source.json").read_text())
            place = {key: source[key] for key in ("repository", "path", "commit")}
        return loading.load(path, "cpu", None), {"ae_sha256": sha256(path), **place}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An SAE to train: its name for messages, its recipe, and the steps before which a checkpoint
    is saved. `sweep` groups its run with others in wandb. `start` is the SAE that it begins with,
    where its weights are not drawn."""

    name: str
    recipe: SaeRecipe
    checkpoint_steps: Sequence[int] = ()
    sweep: str | None = None
    start: Start | None = None

    def is_in(self, stores: Stores) -> bool:
        """Whether the stores have the SAE and all its checkpoints. Drops damaged ones."""
        # Evaluated even if the SAE is missing, so that damaged checkpoints are dropped.
        checkpoints = self.has_checkpoints(stores)
        return stores.saes.has(self.recipe.hash) and checkpoints

    def has_checkpoints(self, stores: Stores, before: int | None = None) -> bool:
        """Whether the store has all its checkpoints, or all of those before a step. Drops damaged
        ones."""
        steps = [step for step in self.checkpoint_steps if before is None or step < before]
        # A list, so that `has` is called for each, which drops the damaged ones.
        stored = [stores.checkpoints.has(checkpoint_key(self.recipe, step)) for step in steps]
        return all(stored)


class Member:
    """An SAE in training."""

    def __init__(self, wanted: Wanted, d_model: int, device: torch.device) -> None:
        self.wanted, self.device = wanted, device
        self.trainer = _trainer(wanted.recipe, d_model, device)
        self.trainer.drawn = wanted.start is None
        # Of the SAE that it began with, for provenance.json.
        self.began_with: dict[str, Any] | None = None
        # The first step whose loss was not finite, else -1. On the device, so that no step waits.
        self.bad_step = torch.tensor(-1, device=device)
        self.rows: list[dict[str, float]] = []
        self.checkpoint: Path | None = None

    @property
    def name(self) -> str:
        return self.wanted.name

    @property
    def recipe(self) -> SaeRecipe:
        return self.wanted.recipe

    def begin(self, scale: float, target_scale: float) -> None:
        """Take the weights of the SAE that it begins with, if it begins with one. `scale` is the
        norm factor, `target_scale` that of targets. Raises SaemakeError where they are missing, or
        have other names or shapes."""
        start = self.wanted.start
        if start is None:
            return
        source, self.began_with = start.read()
        try:
            self.trainer.begin_with(source, scale, target_scale)
        except SaemakeError as error:
            raise SaemakeError(f"{self.name} cannot start from {start.folder}: {error}") from None

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and plain values."""
        return {
            "trainer": self.trainer.state(),
            "began_with": self.began_with,
            "bad_step": int(self.bad_step),
            "rows": self.rows,
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a result of `state`."""
        self.trainer.load_state(state["trainer"])
        self.bad_step.fill_(state["bad_step"])
        self.rows = state["rows"]
        self.began_with = state.get("began_with")
        self.checkpoint = Path(state["checkpoint"]) if state["checkpoint"] else None

    def update(
        self,
        step: int,
        x_BD: Tensor,
        y_BD: Tensor | None = None,
        end_to_end: Callable[[Tensor], Tensor] | None = None,
    ) -> Forward:
        """One training step on activations [B, D] that are divided by the norm factor, and on their
        targets (None: the same). `end_to_end` is as in Trainer.update."""
        forward = self.trainer.update(step, x_BD, y_BD, end_to_end)
        bad = ~forward.loss.detach().isfinite() & (self.bad_step < 0)
        self.bad_step.masked_fill_(bad, step)
        return forward

    def is_finite(self) -> bool:
        """Whether every weight is finite. Waits for the device."""
        return self.trainer.dictionary.is_finite()

    def save_checkpoint(self, step: int, scale: float, target_scale: float, store: Store) -> None:
        """Store the SAE as it is before `step`, unless a weight is not finite. `scale` is the norm
        factor, `target_scale` that of targets."""
        if self.is_finite():
            key = checkpoint_key(self.recipe, step)
            content = files.sae_bytes(self.trainer.finished(scale, target_scale))
            store.put(key, {CHECKPOINT: content, OF_SAE: self.recipe.hash.encode()})
            self.checkpoint = store.folder / key / CHECKPOINT

    def last_good(self) -> str:
        """A clause that says where the last checkpoint is."""
        if self.checkpoint is None:
            key = f"architectures.{self.recipe.architecture}.checkpoints"
            return f"(no checkpoint before it: {key})"
        return f"(last good checkpoint: {self.checkpoint})"

    @torch.no_grad()
    def row(self, step: int, y_BD: Tensor, forward: Forward, report: Logging) -> dict[str, float]:
        """One row of training.csv, from the targets and the results of the step's forward pass. The
        parts of the loss stand between `loss` and `l0`, which is how `reporting` knows them."""
        y_BD, y_hat_BD = y_BD.float(), forward.x_hat_BD.float()
        unexplained = (y_BD - y_hat_BD).var(dim=0).sum() / y_BD.var(dim=0).sum()
        trainer = self.trainer
        return {
            "step": step,
            "tokens": (step + 1) * len(y_BD),
            "learning_rate": trainer.learning_rate(step),
            "loss": forward.loss.item(),
            **{part: value.item() for part, value in forward.parts.items()},
            "l0": forward.l0.item(),
            "frac_variance_explained": 1 - unexplained.item(),
            "dead": int((trainer.tokens_since_fired_F >= report.dead_after_tokens).sum()),
            **trainer.progress(),
        }


def _trainer(recipe: SaeRecipe, d_model: int, device: torch.device) -> Trainer:
    kind = architectures.get(recipe.architecture)
    return kind.trainer()(
        d_model=d_model,
        width=recipe.width,
        sparsity=recipe.sparsity,
        settings=kind.Settings.model_validate({**recipe.settings, "sweep": [recipe.sparsity]}),
        training=recipe.training,
        steps=recipe.steps,
        device=device,
        is_transcoder=recipe.hookpoint.is_transcoder,
        with_skip=kind.skip,
    )
