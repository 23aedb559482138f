"""The catalogue: a CSV with one published SAE a row (resources/saebench/README.md)."""

import csv
import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from saemake import architectures
from saemake.base.errors import SaemakeError, nearest
from saemake.config.config import Config
from saemake.config.faults import ConfigError
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import HUB, PUBLISHED, RESULTS, SaeName, Sweep
from saemake.paths.spelling import sae_of, value_of
from saemake.paths.sweeps import members

# A part of a Hub path: none is hidden, and none leads upwards.
PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
FIGURES = (
    "core_l0",
    "core_loss_recovered",
    "core_ce_clean",
    "core_ce_sae",
    "core_ce_ablated",
    "bundled_frac_recovered",
    "bundled_l0",
)
COLUMNS = ("model", "layer", "width", "architecture", "sparsity", "repository", "path", *FIGURES)


@dataclass(frozen=True)
class Entry:
    """A published SAE: what it is, where on the Hub its folder is, and its published figures, those
    that there are. `latents` is its width."""

    model: str
    layer: int
    latents: int
    architecture: str
    sparsity: float
    repository: str
    path: str
    figures: Mapping[str, float]

    @property
    def hub_folder(self) -> str:
        """Where a rebuilt one is laid out as published."""
        return f"{HUB}/{self.repository}/{self.path}"


class Catalogue:
    """All entries, found by the Hub's names and by ours."""

    def __init__(self, entries: list[Entry], widths: Mapping[str, int]) -> None:
        self.entries = entries
        # Of several names of a width, whatever the order in the config, the shortest.
        self._width = {
            latents: name
            for name, latents in sorted(widths.items(), key=lambda item: (-len(item[0]), item[0]))
        }
        self._at = {entry.hub_folder: entry for entry in entries}
        self._of = {self.name(entry): entry for entry in entries}
        self._named = {str(name): entry for name, entry in self._of.items()}

    def name(self, entry: Entry) -> SaeName:
        """Our name of it."""
        width = self._width[entry.latents]
        sweep = Sweep(entry.model, Hookpoint(entry.layer), entry.architecture, width)
        return SaeName(sweep, entry.sparsity)

    def named(self, name: str) -> Entry:
        """The published one of our name, without results/; KeyError where there is none."""
        return self._named[name]

    def of_sweep(self, sweep: Sweep) -> dict[SaeName, Entry]:
        """The published ones of a sweep, in the catalogue's order."""
        return {name: entry for name, entry in self._of.items() if name.sweep == sweep}

    def sweeps(self) -> list[Sweep]:
        """The sweeps that have a published SAE, in the catalogue's order."""
        return list(dict.fromkeys(name.sweep for name in self._of))

    def has(self, hub_folder: str) -> bool:
        """Whether one is laid out in that folder under hub/."""
        return hub_folder in self._at

    def at(self, hub_folder: str) -> Entry:
        """The one laid out in a folder under hub/; SaemakeError, naming the nearest, where there is
        none."""
        if not self.has(hub_folder):
            raise SaemakeError(f"no published SAE of that name; {nearest(hub_folder, self._at)}")
        return self._at[hub_folder]

    def under(self, hub_folder: str) -> list[Entry]:
        """Those laid out below a folder: of a repository, an architecture or a layer."""
        return [entry for entry in self.entries if entry.hub_folder.startswith(f"{hub_folder}/")]

    def has_folder(self, path: str) -> bool:
        """Whether a path is a folder under hub/ with one rebuilt SAE in it, or several."""
        folder = path.rstrip("/")
        return path.startswith(f"{HUB}/") and (self.has(folder) or bool(self.under(folder)))

    def wanted(self, config: Config, entry: Entry) -> SaeName:
        """Our name of it. Raises SaemakeError where the config cannot train such an SAE."""
        name = self.name(entry)
        try:
            members(config, name)
            return sae_of(config, name.sweep, name.sparsity_name)
        except SaemakeError as error:
            raise SaemakeError(f"{name}: published, but not of this config: {error}") from None


def load(config: Config) -> Catalogue:
    """The config's catalogue. Raises ConfigError where it is missing or says what cannot be."""
    layers = tuple((name, model.layers) for name, model in config.models.items())
    path = config.root / config.published.catalogue
    catalogue = _load(path, tuple(config.widths.items()), layers)
    repositories = {entry.repository for entry in catalogue.entries}
    for repository in config.published.revisions:
        if repository not in repositories:
            raise ConfigError(
                f"published.revisions.{repository}",
                f"not in the catalogue; {nearest(repository, repositories)}",
            )
    return catalogue


@functools.cache
def _load(
    path: Path, widths: tuple[tuple[str, int], ...], layers: tuple[tuple[str, int], ...]
) -> Catalogue:
    try:
        with path.open(newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise ConfigError("published.catalogue", f"{path} cannot be read: {error}") from None
    if list(columns) != list(COLUMNS):
        raise ConfigError(
            "published.catalogue",
            f"{path}: its columns are {','.join(columns)}; they should be {','.join(COLUMNS)}",
        )
    entries = []
    for line, row in enumerate(rows, start=2):
        try:
            entries.append(_entry(row, dict(widths), dict(layers)))
        except (ValueError, SaemakeError) as error:
            raise ConfigError("published.catalogue", f"{path}, line {line}: {error}") from None
    catalogue = Catalogue(entries, dict(widths))
    for known, what in ((catalogue._at, "place on the Hub"), (catalogue._of, "SAE")):
        if len(known) < len(entries):
            raise ConfigError("published.catalogue", f"{path}: the same {what} on two lines")
    return catalogue


def _entry(
    row: Mapping[str, str | None], widths: Mapping[str, int], layers: Mapping[str, int]
) -> Entry:
    fields = {column: value for column, value in row.items() if value is not None}
    if set(fields) != set(COLUMNS):
        raise ValueError(f"it has not {len(COLUMNS)} fields")
    for column in ("repository", "path"):
        if not all(PART.fullmatch(part) for part in fields[column].split("/")):
            raise ValueError(f"{column} '{fields[column]}' is no path on the Hub")
    if fields["repository"].count("/") != 1:
        raise ValueError(f"repository '{fields['repository']}' is not OWNER/NAME")
    if fields["model"] not in layers:
        raise ValueError(f"no model '{fields['model']}' in the config")
    if not 0 <= int(fields["layer"]) < layers[fields["model"]]:
        raise ValueError(f"{fields['model']} has no layer {fields['layer']}")
    if int(fields["width"]) not in widths.values():
        raise ValueError(
            f"no width of {fields['width']} latents in the config; name it in 'widths'"
        )
    return Entry(
        model=fields["model"],
        layer=int(fields["layer"]),
        latents=int(fields["width"]),
        architecture=fields["architecture"],
        sparsity=_sparsity(fields["architecture"], fields["sparsity"]),
        repository=fields["repository"],
        path=fields["path"],
        figures={name: _figure(fields[name]) for name in FIGURES if fields[name]},
    )


def _sparsity(architecture: str, text: str) -> float:
    architectures.get(architecture)
    try:
        return value_of(architecture, text)
    except ValidationError:
        raise ValueError(f"'{text}' is no sparsity of {architecture}") from None


def _figure(text: str) -> float:
    if not math.isfinite(figure := float(text)):
        raise ValueError(f"{text} is no figure")
    return figure


def find(catalogue: Catalogue, text: str) -> list[Entry]:
    """The entries with every word of `text` in one of their names, ours or the Hub's, or which
    `text` names a file of; upper and lower case are one."""
    words = re.sub(r"/(tree|blob|resolve)/[^/ ]+/", "/", text.lower()).split()
    for before in ("https://huggingface.co/", f"{HUB}/", f"{RESULTS}/", f"{PUBLISHED}/"):
        words = [word.removeprefix(before) for word in words]

    def matches(entry: Entry) -> bool:
        names = (f"{entry.repository}/{entry.path}/", f"{catalogue.name(entry)}/")
        ours, theirs = (name.lower() for name in names)
        return all(
            word in f"{ours} {theirs}" or f"{word}/".startswith((ours, theirs)) for word in words
        )

    return [entry for entry in catalogue.entries if matches(entry)]
