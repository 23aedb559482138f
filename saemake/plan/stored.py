"""What the store has, by its entries' names: no large file is read, and no torch is needed."""

import contextlib
import functools
import json
from collections.abc import Iterable
from pathlib import Path

from saemake.base.store import Store
from saemake.config.config import Config
from saemake.paths.names import (
    CHECKPOINT,
    PCA,
    PUBLISHED,
    Baselines,
    Checkpoints,
    PublishedSweep,
    SaeName,
    Subjects,
    Sweep,
    Trained,
)
from saemake.paths.sweeps import members
from saemake.recipes.features import features_recipes
from saemake.recipes.judging import evaluation_key, evaluation_recipes
from saemake.recipes.kinds import JudgedBy
from saemake.recipes.training import baselines_recipe, checkpoint_key, sae_recipe

KINDS = ("saes", "checkpoints", "baselines", "evaluations", "features", "tokens", "setups")


def stored_now(root: Path) -> "Stored":
    """What is there now; listed anew where an entry came or went since it was last asked."""
    return _listed(root, tuple(_state(root / kind) for kind in KINDS))


def _state(folder: Path) -> tuple[int, int]:
    """Changes with every entry: the time alone has ticks, within which several may come."""
    if not folder.is_dir():
        return 0, 0
    status = folder.stat()
    return status.st_mtime_ns, status.st_nlink


@functools.lru_cache(maxsize=1)
def _listed(root: Path, states: tuple[tuple[int, int], ...]) -> "Stored":
    return Stored(root)


class Stored:
    """The entries of the store under `root` when it was first asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stores = {kind: Store(root, kind) for kind in KINDS}
        self._entries = {kind: set(store.entries()) for kind, store in self._stores.items()}

    def has(self, kind: str, key: str) -> bool:
        return key in self._entries[kind]

    def folder(self, kind: str, key: str) -> Path:
        """Where an entry lies."""
        return self._stores[kind].folder / key

    def judged(self, config: Config, subjects: Subjects, evaluation: str) -> list[bool]:
        """Whether the evaluation of each thing that one job judges is there, in the job's order."""
        recipes = evaluation_recipes(config, subjects, evaluation)
        return [
            all(self._judged(config, subjects, str(name), recipe) for recipe in by_seed)
            for name, by_seed in recipes.items()
        ]

    def _judged(self, config: Config, subjects: Subjects, name: str, recipe: JudgedBy) -> bool:
        match subjects:
            case PublishedSweep():
                return self._published(name, recipe.hash)
            case Baselines(model, hookpoint):
                key = baselines_recipe(config, model, hookpoint).hash
                return self.has_evaluation(recipe, "baselines", key, PCA)
            case Checkpoints():
                return self.has_evaluation(recipe, "checkpoints", recipe.subject, CHECKPOINT)
            case Sweep() | SaeName():
                return self.has_evaluation(recipe, "saes", recipe.subject, "ae.pt")

    def _published(self, name: str, recipe_hash: str) -> bool:
        try:
            source = json.loads(Path(PUBLISHED, name, "source.json").read_text())
            judged = source["sha256"]["ae.pt"]
        except (OSError, ValueError, LookupError, TypeError):
            return False
        return self.has("evaluations", evaluation_key(recipe_hash, judged))

    def has_evaluation(self, recipe: JudgedBy, kind: str, key: str, file: str) -> bool:
        """Whether an evaluation of an entry's file is there; not of a damaged entry, which a job
        makes again."""
        judged = self._sum(kind, key, file)
        return judged is not None and self.has("evaluations", evaluation_key(recipe.hash, judged))

    def _sum(self, kind: str, key: str, file: str) -> str | None:
        """The recorded sha256 of an entry's file; None if the entry is not there, or damaged."""
        if not self.has(kind, key):
            return None
        try:
            return self._stores[kind].sum_of(key, file)
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def paged(self, config: Config, trained: Trained) -> list[bool]:
        """Whether the data of each page that one job makes is there, in the job's order."""
        return [
            (judged := self._sum("saes", recipe.subject, "ae.pt")) is not None
            and self.has("features", evaluation_key(recipe.hash, judged))
            for recipe in features_recipes(config, trained).values()
        ]

    def lacks(self, config: Config, trained: Trained) -> list[SaeName]:
        """The SAEs that a job has to train: not there, or not all their checkpoints."""
        sweep = trained.sweep if isinstance(trained, SaeName) else trained
        steps = config.checkpoint_steps(sweep.model, sweep.architecture)
        return [sae for sae in members(config, trained) if not self._trained(config, sae, steps)]

    def snapshot_step(self, members: Iterable[str]) -> int | None:
        """The last step that a snapshot of some of these SAEs, by their recipes' hashes, goes on
        from; None where there is none. Whether it fits the device and software is not checked."""
        snapshots, wanted, steps = Store(self.root, "snapshots"), set(members), []
        for key in snapshots.entries():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                contents = json.loads(snapshots.read(key, "contents.json"))
                if wanted & set(contents["members"]):
                    steps.append(int(contents["step"]))
        return max(steps, default=None)

    def _trained(self, config: Config, sae: SaeName, steps: Iterable[int]) -> bool:
        recipe = sae_recipe(config, sae)
        keys = [checkpoint_key(recipe, step) for step in steps]
        return self.has("saes", recipe.hash) and all(self.has("checkpoints", key) for key in keys)
