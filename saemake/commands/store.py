"""Print what the store holds, its size, and the entries that the config does not name.

Each entry that the config does not name is described, with the fields in which it differs from the
nearest SAE that the config names. If files of a model that the config does not have are links to
the entry, their folder describes it. --prune removes these entries, after a question on the
terminal or with --yes: SAEs, evaluations, checkpoints, tokens, snapshots, the commits of Hub
revisions, and half-written entries that kills left. It removes nothing that a running job holds.
Paths under results/ stay, since they are links to the same files.

Where the config names a store that others share, its entries are counted too. --push puts there
what it lacks of this store, whether or not the config pushes.
"""

import argparse
import contextlib
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from saemake.base.digest import digest
from saemake.base.errors import SaemakeError
from saemake.base.remote_files import RemoteError
from saemake.base.store import Store
from saemake.commands.unnamed import Described, elsewhere
from saemake.config.config import Config
from saemake.config.depth import layers_if_known
from saemake.config.sections import Source
from saemake.hub import revision_key
from saemake.inputs.converted import converted_key
from saemake.inputs.datasets import RECIPE as ROWS_RECIPE
from saemake.judging.evaluate import judged_subject
from saemake.llm.hookpoint import RESID_POST, Hookpoint
from saemake.paths import catalogue, judged_by
from saemake.paths.files import uses
from saemake.paths.grammar import sae_named
from saemake.paths.names import CONVERTED, OF_SAE, RESULTS, STORE, Baselines, SaeName, Sweep
from saemake.paths.starts import start_of
from saemake.paths.stores import shared_store
from saemake.paths.sweeps import members
from saemake.recipes.inputs import dataset_recipe, tokens_recipe
from saemake.recipes.judging import setup_recipe, setups
from saemake.recipes.training import (
    baseline_key,
    baseline_names,
    baselines_recipe,
    checkpoint_key,
    published_key,
    sae_recipe,
)
from saemake.records import made
from saemake.training.snapshots import Snapshots

KINDS = (
    *("saes", "evaluations", "checkpoints", "baselines", "tokens", "snapshots", "revisions"),
    *("features", "setups", "datasets", CONVERTED),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prune", action="store_true", help="remove what the config does not name")
    parser.add_argument("--push", action="store_true", help="fill up the shared store")
    parser.add_argument("--yes", action="store_true", help="with --prune, without asking")


def run(config: Config, options: argparse.Namespace) -> int:
    if options.push and config.store.remote is None:
        raise SaemakeError("store --push: no store is shared; name it in the config's store.remote")
    saes = list(dict.fromkeys([*_saes(config), *_built(config)]))
    named = _named(config, saes)
    described = Described(config, STORE, saes, elsewhere(config, Path(RESULTS)))
    unnamed: dict[str, list[str]] = {}
    size = 0
    print(f"{'':<12} {'entries':>8} {'size':>10} {'unnamed':>8} {'size':>10}")
    for kind in KINDS:
        store = Store(STORE, kind)
        entries = store.entries()
        unnamed[kind] = [key for key in entries if not _is_named(config, store, kind, key, named)]
        sizes = {key: _size(store.folder / key) for key in entries}
        unnamed_size = sum(sizes[key] for key in unnamed[kind])
        size += unnamed_size
        print(
            f"{kind:<12} {len(entries):>8} {_mib(sum(sizes.values())):>10}"
            f" {len(unnamed[kind]):>8} {_mib(unnamed_size):>10}"
        )
    lines = [line for kind, keys in unnamed.items() for line in described.lines(kind, keys)]
    if lines:
        print("not named by this config (in brackets, how it differs: there -> config):")
        print("\n".join(f"  {line}" for line in lines))
    if models := described.models_elsewhere(unnamed):
        print(
            f"files under {', '.join(f'{RESULTS}/{model}/' for model in models)} are links to some"
            " of these; to keep their entries, give the config of each model with --configfile"
        )
    if options.prune:
        count = sum(map(len, unnamed.values()))
        if count and not options.yes:
            _ask(f"{count} entries ({_mib(size)})")
        for kind, keys in unnamed.items():
            _prune(Store(STORE, kind), kind, keys)
        made.sweep()
    _share(config, push=options.push)
    return 0


def _share(config: Config, *, push: bool) -> None:
    """Say what the shared store has, and push what it lacks. Raises SaemakeError where it cannot be
    used."""
    shared = shared_store(config)
    if shared is None:
        return
    try:
        there = shared.entries()
        for kind, keys in there.items():
            here = set(Store(STORE, kind).entries())
            if here or keys:
                print(
                    f"{shared.url}: {len(keys)} {kind}; of the {len(here)} here"
                    f" {len(here & keys)} are there"
                )
        if push:
            missing = _undamaged(
                (kind, key)
                for kind, keys in there.items()
                for key in Store(STORE, kind).entries()
                if key not in keys
            )
            print(f"pushed {shared.send(missing)} entries")
    except RemoteError as error:
        raise SaemakeError(f"shared store {shared.url}: {error}") from None


def _undamaged(entries: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those entries that can be pushed; the others are told."""
    good = []
    for kind, key in entries:
        if fault := Store(STORE, kind).fault(key):
            print(f"not pushed: {kind}/{key} is damaged ({fault})")
        else:
            good.append((kind, key))
    return good


def _ask(what: str) -> None:
    """Ask on the terminal whether to go on. Raises SaemakeError if the answer is no, or if there is
    no terminal."""
    if not sys.stdin.isatty():
        raise SaemakeError(
            f"store --prune would remove {what}; nothing was removed: add --yes to remove them"
        )
    if input(f"remove these {what}? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SaemakeError("nothing was removed")


def _named(config: Config, saes: Iterable[SaeName]) -> dict[str, set[str]]:
    """The keys of all entries that the config names, by kind. For evaluations they are the keys of
    the things that may be judged."""
    named: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for sae in saes:
        recipe = sae_recipe(config, sae)
        named["saes"].add(recipe.hash)
        steps = config.checkpoint_steps(sae.sweep.model, sae.sweep.architecture)
        named["checkpoints"] |= {checkpoint_key(recipe, step) for step in steps}
    named["evaluations"] |= named["saes"] | named["checkpoints"]
    named["evaluations"] |= {published_key(e.hub_folder) for e in catalogue.load(config).entries}
    named["datasets"] = {dataset_recipe(config, name).hash for name in config.datasets}
    # Nothing can be there of a model whose layers are not known.
    known = [name for name in config.models if layers_if_known(config, name) is not None]
    for model, use in itertools.product(known, uses(config)):
        named["tokens"].add(tokens_recipe(config, model, use).hash)
    named[CONVERTED] = {
        converted_key(config, name) for name in known if config.models[name].gguf_file
    }
    sources: list[tuple[str, Source]] = [("model", model) for model in config.models.values()]
    sources += [("dataset", text) for text in config.texts.values()]
    sources += [("dataset", data) for data in config.datasets.values()]
    for kind, source in sources:
        if source.hub is not None:
            named["revisions"].add(revision_key(kind, source.hub, source.revision))
    for model in config.models:
        for hookpoint in _hookpoints(config, model):
            named["baselines"].add(baselines_recipe(config, model, hookpoint).hash)
            named["setups"] |= {
                setup_recipe(config, setup).hash
                for name in config.sae_bench_evaluations
                if config.sae_bench_of(model, name).keep_setup
                and judged_by.why_not(config, Baselines(model, hookpoint), name) is None
                for setup in setups(config, model, hookpoint.layer, name)
            }
            named["evaluations"] |= {
                baseline_key(config, model, hookpoint, name)
                for name in baseline_names(config, model)
            }
    return named


def _hookpoints(config: Config, model: str) -> list[Hookpoint]:
    """All layers, at the sites of the suite and at those that have a folder under results/."""
    sites = [RESID_POST, *config.models[model].suite.sites]
    for folder in Path(RESULTS, model).glob("L*.*"):
        with contextlib.suppress(SaemakeError):
            sites.append(Hookpoint.named(folder.name).site)
    sites += [target for site in sites if (target := Hookpoint.at(0, site).target.read) != site]
    layers = range(layers_if_known(config, model) or 0)
    return [Hookpoint.at(layer, site) for site in dict.fromkeys(sites) for layer in layers]


def _saes(config: Config) -> Iterator[SaeName]:
    for model, architecture, width in itertools.product(
        config.models, config.architectures, config.widths
    ):
        for hookpoint in _hookpoints(config, model):
            try:
                swept = members(config, Sweep(model, hookpoint, architecture, width))
                for sae in swept:
                    start_of(config, sae)
            except SaemakeError:  # it does not fit: nothing of that name can be there
                continue
            yield from swept


def _built(config: Config) -> Iterator[SaeName]:
    """The SAEs under results/ that were built by their own names, in no sweep."""
    for path in Path(RESULTS).glob("*/L*/**/ae.pt"):
        with contextlib.suppress(SaemakeError):
            sae = sae_named(config, str(path.parent.relative_to(RESULTS)))
            record = made.read(str(path))
            if record and set(record.job) == {str(sae)}:
                yield sae


def _is_named(
    config: Config, store: Store, kind: str, key: str, named: dict[str, set[str]]
) -> bool:
    """Whether the config names an entry. An evaluation counts as named if its subject is, a
    snapshot if it has a named SAE that is not finished yet."""
    if kind in ("evaluations", "features"):
        return judged_subject(store, key) in named["evaluations"]
    if kind == "datasets":
        return digest(json.loads(store.read(key, ROWS_RECIPE))) in named["datasets"]
    if kind == "snapshots":
        finished = set(Store(STORE, "saes").entries())
        wanted = Snapshots(store).members_of(key) & (named["saes"] | _by_name(config, store, key))
        return bool(wanted - finished)
    return key in named[kind]


def _by_name(config: Config, store: Store, key: str) -> set[str]:
    """The recipe hashes of the SAEs in a snapshot that the config would make under their names,
    also those that no sweep lists."""
    hashes = set()
    for name in Snapshots(store).names_of(key).values():
        with contextlib.suppress(SaemakeError):
            hashes.add(sae_recipe(config, sae_named(config, name)).hash)
    return hashes


def _prune(store: Store, kind: str, unnamed: list[str]) -> None:
    """Remove entries, except for those that a job is using: it holds the locks of its SAEs."""
    locks = Store(STORE, "saes")
    for key in unnamed:
        with locks.try_lock(_saes_behind(store, kind, key)) as held:
            if held:
                store.drop(key)
    store.sweep()


def _saes_behind(store: Store, kind: str, key: str) -> Iterable[str]:
    """The recipe hashes of the SAEs whose locks guard an entry; for most kinds the entry's key."""
    if kind == "snapshots":
        return Snapshots(store).members_of(key)
    if kind == "checkpoints":
        with contextlib.suppress(OSError):
            return [store.read(key, OF_SAE).decode()]
    return [key]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
