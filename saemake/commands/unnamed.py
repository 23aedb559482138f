"""Names for the store's entries. The store holds no names; they are derived from the recipes, or
from the files that are links to an entry.
"""

import contextlib
import functools
import json
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from saemake import architectures
from saemake.base.digest import digest
from saemake.base.errors import SaemakeError
from saemake.base.store import Store
from saemake.config.config import Config
from saemake.config.sections import FIGURES
from saemake.evaluation.baselines import RECIPE as BASELINES_RECIPE
from saemake.judging.evaluate import RECIPE
from saemake.llm.hookpoint import RESID_POST, Hookpoint
from saemake.paths.files import uses
from saemake.paths.grammar import sae_named
from saemake.paths.names import OF_SAE, SaeName, SetupName, seed_name, sparsity_name
from saemake.paths.spelling import width_name
from saemake.recipes.inputs import model_recipe, tokens_recipe
from saemake.recipes.judging import setup_recipe
from saemake.recipes.training import baselines_recipe, sae_recipe
from saemake.records.at_hand import differences
from saemake.training.snapshots import Snapshots

# Description of an entry whose recipe cannot be read, or that an older saemake stored without one.
UNKNOWN = "of an unknown recipe"
# The exceptions that a recipe of another form raises: it is damaged, or of another saemake version.
STRANGE = (LookupError, TypeError, AttributeError, ValueError)
# Baselines of up to this many components are recognised, by hashing all their possible names.
MOST_COMPONENTS = 1024


# Device and number of a file: those of an entry's file and of the links to it are the same.
Inode = tuple[int, int]


def elsewhere(config: Config, results: Path) -> dict[Inode, str]:
    """The files under results/ of models that the config does not have, by inode: the folder of
    each, without results/."""
    known = {*config.models, FIGURES}
    folders = [path for path in results.glob("[!.]*/") if path.name not in known]
    return {
        inode: str(file.parent.relative_to(results))
        for folder in folders
        for file in folder.rglob("*")
        if (inode := _inode(file)) is not None
    }


def _inode(path: Path) -> Inode | None:
    """The inode of a file; None if it is a folder or gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


class Described:
    """Describes entries of the store, and how they differ from the entries that the config
    names."""

    def __init__(
        self,
        config: Config,
        root: Path,
        saes: Iterable[SaeName],
        links: Mapping[Inode, str] | None = None,
    ) -> None:
        """`saes` are all SAEs that the config names, `links` are as from `elsewhere`."""
        self.config, self.root, self.named = config, root, list(saes)
        self.links = links or {}

    def lines(self, kind: str, keys: Iterable[str]) -> list[str]:
        """Lines that describe entries of a kind. Entries of the same description share a line."""
        describe = self._describers().get(kind, lambda key: "the commit of a revision on the Hub")
        keys_of: dict[str, list[str]] = {}
        for key in keys:
            place = self.place(kind, key)
            description = f"{place} (the model is not of this config)" if place else None
            keys_of.setdefault(description or _safely(describe, key), []).append(key)
        return [
            f"{kind}: {description}" + (f", {len(entries)} entries" if len(entries) > 1 else "")
            for description, entries in sorted(keys_of.items())
        ]

    def place(self, kind: str, key: str) -> str | None:
        """The folder of a file that is a link to one of the entry's, if this config does not have
        its model."""
        inodes = map(_inode, (self.root / kind / key).rglob("*"))
        return next((self.links[each] for each in inodes if each and each in self.links), None)

    def models_elsewhere(self, keys_of: Mapping[str, Iterable[str]]) -> list[str]:
        """The models that this config does not have, whose files are links to entries of a kind."""
        places = [self.place(kind, key) for kind, keys in keys_of.items() for key in keys]
        return sorted({place.split("/")[0] for place in places if place})

    def _describers(self) -> dict[str, Callable[[str], str]]:
        return {
            "saes": self._sae,
            "evaluations": self._evaluation,
            "features": self._features,
            "checkpoints": self._checkpoint,
            "baselines": self._baselines,
            "tokens": self._tokens,
            "snapshots": self._snapshot,
            "setups": self._setup,
            "datasets": lambda key: "rows of a dataset",
        }

    def _sae(self, key: str) -> str:
        recipe = self._recipe_of_sae(key)
        if recipe is None:
            return UNKNOWN
        model, lines = self._nearest(recipe)
        name = self._name(recipe, model)
        if self._is_made_by(name, key):
            return f"{name} (not in the sweep)"
        return f"{name} ({'; '.join(lines)})"

    def _is_made_by(self, name: str, key: str) -> bool:
        """Whether the config makes an SAE of that recipe hash under that name."""
        try:
            return sae_recipe(self.config, sae_named(self.config, name)).hash == key
        except SaemakeError:
            return False

    def _recipe_of_sae(self, key: str) -> dict[str, Any] | None:
        provenance = self._read("saes", key, "provenance.json")
        return None if provenance is None else provenance.get("recipe")

    def _read(self, kind: str, key: str, file: str) -> dict[str, Any] | None:
        try:
            return json.loads(Store(self.root, kind).read(key, file))
        except (OSError, ValueError):
            return None

    def _name(self, recipe: dict[str, Any], model: str | None = None) -> str:
        """The name of a recipe's SAE, with the config's names of its model and width if there are
        any. `model` selects among several models with the same LM."""
        config = self.config
        width = width_name(config, recipe["width"])
        kind, value = recipe["architecture"], recipe["sparsity"]
        known = kind in architectures.names()
        sparsity = sparsity_name(kind, value) if known else str(value)
        model = model or self._model(recipe["tokens"]["model"])
        seed, default = recipe["training"]["seed"], self._seed(model)
        part = f"/{seed_name(seed)}" if default not in (None, seed) else ""
        return f"{model}/{_hookpoint(recipe)}/{kind}/{width}/{sparsity}{part}"

    def _seed(self, model: str) -> int | None:
        """The seed whose SAEs have no such part in their paths; None of a model elsewhere."""
        return self.config.training_of(model).seed if model in self.config.models else None

    @functools.cached_property
    def _models(self) -> dict[str, dict[str, Any]]:
        return {
            name: model_recipe(self.config, name).model_dump(mode="json")
            for name in self.config.models
        }

    def _model(self, recipe: dict[str, Any]) -> str:
        for name, known in self._models.items():
            if known == recipe:
                return name
        return recipe["hub"] or f"a local model of content {recipe['content'][:12]}"

    @functools.cached_property
    def _at(self) -> dict[tuple[Hookpoint, str, int], list[SaeName]]:
        """The SAEs that the config names, by hookpoint, architecture and latents."""
        saes_at: dict[tuple[Hookpoint, str, int], list[SaeName]] = {}
        for sae in self.named:
            latents = self.config.latents(sae.sweep.width)
            place = (sae.hookpoint, sae.sweep.architecture, latents)
            saes_at.setdefault(place, []).append(sae)
        return saes_at

    def _nearest(self, recipe: dict[str, Any]) -> tuple[str | None, list[str]]:
        """Among the config's SAEs of the same LM, hookpoint, architecture and width, the one with
        the fewest differing fields: its model, and the differing fields."""
        lm = recipe["tokens"]["model"]
        models = {name for name, model_recipe in self._models.items() if model_recipe == lm}
        place = (_hookpoint(recipe), recipe["architecture"], recipe["width"])
        alike = [sae for sae in self._at.get(place, ()) if sae.sweep.model in models]
        same = [sae for sae in alike if sae.sparsity == recipe["sparsity"]]
        apart = [(sae.sweep.model, list(self._differs(recipe, sae))) for sae in same or alike]
        model, lines = min(
            apart,
            key=lambda model_and_lines: len(model_and_lines[1]),
            default=(None, ["nothing of this config is like it"]),
        )
        absent = ["not in the sweep"] * bool(alike and not same)
        return model, absent + [line for line in lines if not line.startswith("sparsity: ")]

    def _differs(self, recipe: dict[str, Any], sae: SaeName) -> Iterator[str]:
        return differences(recipe, sae_recipe(self.config, sae).model_dump(mode="json"))

    @functools.cached_property
    def _subjects(self) -> dict[str, str]:
        """Names of SAEs in the store and in the config, by recipe hash."""
        names: dict[str, str] = {}
        for key in Store(self.root, "saes").entries():
            with contextlib.suppress(*STRANGE):
                recipe = self._recipe_of_sae(key) or {}
                place = self.place("saes", key)
                names[key] = place or self._name(recipe, self._nearest(recipe)[0])
        names |= {sae_recipe(self.config, sae).hash: str(sae) for sae in self.named}
        return names

    def _evaluation(self, key: str) -> str:
        recipe = self._read("evaluations", key, RECIPE)
        if recipe is None:
            return UNKNOWN
        subject = self._subjects.get(recipe["subject"]) or self._judged_otherwise(recipe["subject"])
        return f"{recipe['evaluation']} of {subject}"

    def _features(self, key: str) -> str:
        recipe = self._read("features", key, RECIPE)
        if recipe is None:
            return UNKNOWN
        subject = self._subjects.get(recipe["subject"], "what the store no longer has")
        return f"what the page of {subject} shows"

    def _judged_otherwise(self, subject: str) -> str:
        """The name of a judged baseline or checkpoint."""
        return self._baseline_subjects.get(subject) or self._checkpoint_subjects.get(
            subject, "what the store no longer has"
        )

    @functools.cached_property
    def _baseline_subjects(self) -> dict[str, str]:
        names = ["identity", "pca", *(f"pca/k_{k}" for k in range(1, MOST_COMPONENTS + 1))]
        return {
            digest([key, name]): f"the baseline {name} of {_safely(self._baselines, key)}"
            for key in Store(self.root, "baselines").entries()
            for name in names
        }

    @functools.cached_property
    def _checkpoint_subjects(self) -> dict[str, str]:
        store = Store(self.root, "checkpoints")
        return {key: _safely(self._checkpoint, key) for key in store.entries()}

    def _checkpoint(self, key: str) -> str:
        try:
            of_sae = Store(self.root, "checkpoints").read(key, OF_SAE).decode()
        except OSError:
            return UNKNOWN
        name = self._subjects.get(of_sae, "an SAE that the store no longer has")
        step = self._steps(of_sae).get(key)
        return f"a checkpoint of {name}" + ("" if step is None else f", step {step:,}")

    @functools.cache  # noqa: B019  the command ends soon
    def _steps(self, of_sae: str) -> dict[str, int]:
        """The steps of all possible checkpoints of an SAE, by key."""
        recipe = self._recipe_of_sae(of_sae)
        return {digest([of_sae, s]): s for s in range(recipe["steps"] + 1 if recipe else 0)}

    def _baselines(self, key: str) -> str:
        recipe = self._read("baselines", key, BASELINES_RECIPE)
        if recipe is None:
            return UNKNOWN
        model = self._model(recipe["tokens"]["model"])
        hookpoint, differs = _hookpoint(recipe), ""
        if model in self.config.models:
            now = baselines_recipe(self.config, model, hookpoint).model_dump(mode="json")
            differs = "; ".join(differences(recipe, now))
        return f"{model}/{hookpoint}/baselines" + (f" ({differs})" if differs else "")

    @functools.cached_property
    def _texts(self) -> dict[str, dict[str, Any]]:
        """Recipes of tokens by hash, from the SAEs and evaluations in the store."""
        recipes = {}
        for kind, file in (("saes", "provenance.json"), ("evaluations", RECIPE)):
            for key in Store(self.root, kind).entries():
                with contextlib.suppress(*STRANGE):
                    content = self._read(kind, key, file) or {}
                    tokens = content.get("recipe", content)["tokens"]
                    recipes[digest(tokens)] = tokens
        return recipes

    def _tokens(self, key: str) -> str:
        recipe = self._texts.get(key)
        if recipe is None:
            manifest = self._read("tokens", key, "manifest.json") or {}
            return f"{manifest.get('tokens', 0):,} tokens of a text that nothing in the store names"
        model = self._model(recipe["model"])
        known = uses(self.config) if model in self.config.models else []
        now = [tokens_recipe(self.config, model, use).model_dump(mode="json") for use in known]
        fewest = min((list(differences(recipe, other)) for other in now), key=len, default=[])
        amount = f"{recipe['amount']:,} {recipe['unit']} for {model}"
        return amount + (f" ({'; '.join(fewest)})" if fewest else "")

    def _setup(self, key: str) -> str:
        recipe = self._read("setups", key, RECIPE)
        if recipe is None:
            return UNKNOWN
        name = recipe["evaluation"]
        model = self._judged_with(self._model(recipe["model"]), name)
        setup = SetupName(model, recipe["layer"], name, recipe["settings"]["random_seed"])
        differs = ""
        if model in self.config.models and name in self.config.sae_bench_evaluations:
            now = setup_recipe(self.config, setup).model_dump(mode="json")
            differs = "; ".join(differences(recipe, now))
        return str(setup) + (f" ({differs})" if differs else "")

    def _judged_with(self, lm: str, name: str) -> str:
        """The model whose SAEs an evaluation of SAE Bench judges with an LM."""
        if name not in self.config.sae_bench_evaluations:
            return lm
        config = self.config
        judged = [model for model in config.models if config.sae_bench_lm(model, name) == lm]
        return lm if lm in judged or not judged else judged[0]

    def _snapshot(self, key: str) -> str:
        snapshots = Snapshots(Store(self.root, "snapshots"))
        members, kept = snapshots.members_of(key), snapshots.names_of(key)
        names = [
            self._subjects.get(member) or kept.get(member, "an SAE of an unknown recipe")
            for member in members
        ]
        return f"a pass of {len(members)}: {', '.join(sorted(set(names)))}"


def _safely(describe: Callable[[str], str], key: str) -> str:
    """The description of an entry. A strange recipe is no error, so that the entry can be
    pruned."""
    try:
        return describe(key)
    except STRANGE:
        return UNKNOWN


def _hookpoint(recipe: dict[str, Any]) -> Hookpoint:
    """Where the SAE or the baselines of a recipe are."""
    return Hookpoint(recipe["layer"], recipe.get("read", RESID_POST), recipe.get("write"))
