"""Names under hub/ and published/: which files there are, and which SAE each is of.

hub/{owner}/{repository}/{folders as published}/trainer_{i}/    a rebuilt one, laid out as published
published/{model}/L{layer}/{architecture}/{width}/{sparsity}/   the published one itself
published/repositories/{owner}/{repository}.json                the commit that it is taken from
"""

import re
from pathlib import PurePosixPath

from saemake import figures, names
from saemake.catalogue import entries
from saemake.catalogue.entries import PART, Catalogue
from saemake.config import Config
from saemake.errors import SaemakeError, nearest
from saemake.names import (
    FIGURE_FORMATS,
    HUB,
    LATENTS,
    PUBLISHED,
    TABLES,
    SaeName,
    checkpoint_files,
)

HUB_FILES = ("ae.pt", "config.json", "eval_results.json")
WEIGHTS = ("ae.pt", "config.json", "source.json")
COMPARISONS = ("comparison.json", "against_catalogue.json")
FILES = (*WEIGHTS, *TABLES, *LATENTS, *COMPARISONS)
REPOSITORIES = "repositories"


def check_target(config: Config, path: str) -> None:
    """Raise SaemakeError, naming the nearest right name, where `path` is no artifact of this
    config. What a config names but a file need not exist for."""
    top, *parts = path.rstrip("/").split("/")
    if top not in (HUB, PUBLISHED):
        names.check_target(config, path)
        return
    try:
        if not parts:
            raise SaemakeError("name a file or folder in it; `python -m saemake find` lists them")
        for part in parts:
            if not PART.fullmatch(part):
                raise SaemakeError(f"'{part}' cannot be part of a path on the Hub")
        if top == HUB:
            saes_of_hub(config, path)
        else:
            _check_published(config, parts)
    except SaemakeError as error:
        raise SaemakeError(f"{path}: {error}") from None


def saes_of_hub(config: Config, path: str) -> list[SaeName]:
    """The SAEs of a file, or of all below a folder, under hub/. Raises SaemakeError where it is
    neither as published."""
    catalogue = entries.load(config)
    folder = path.rstrip("/")
    if below := catalogue.under(folder):
        return [catalogue.wanted(config, entry) for entry in below]
    inside = PurePosixPath(folder)
    of_checkpoint = inside.parent.name == "checkpoints"
    if inside.suffix not in (".pt", ".json"):
        return [catalogue.wanted(config, catalogue.at(folder))]
    parent = inside.parent.parent if of_checkpoint else inside.parent
    name = catalogue.wanted(config, catalogue.at(str(parent)))
    checkpoints = checkpoint_files(config, name.sweep.model, name.sweep.architecture)
    files = [*HUB_FILES, *checkpoints]
    file = str(inside.relative_to(parent))
    if file not in files:
        raise SaemakeError(f"a rebuilt SAE has no file '{file}'; {nearest(file, files)}")
    return [name]


def hub_folder_files(config: Config, folder: str) -> list[str]:
    """The files that a rebuilt SAE, or all below a folder, have under hub/."""
    catalogue, folder = entries.load(config), folder.rstrip("/")
    below = catalogue.under(folder) or [catalogue.at(folder)]
    return [
        f"{entry.hub_folder}/{file}"
        for entry in below
        for file in (*HUB_FILES, *checkpoint_files(config, entry.model, entry.architecture))
    ]


def is_hub_folder(config: Config, path: str) -> bool:
    """Whether a target is a folder that a rebuilt SAE, or several, are laid out in."""
    if not path.startswith(f"{HUB}/"):
        return False
    catalogue, folder = entries.load(config), path.rstrip("/")
    return bool(catalogue.under(folder)) or catalogue.has(folder)


def _check_published(config: Config, parts: list[str]) -> None:
    catalogue = entries.load(config)
    if parts[0] == REPOSITORIES:
        there = {f"{REPOSITORIES}/{entry.repository}.json" for entry in catalogue.entries}
        if (file := "/".join(parts)) not in there:
            raise SaemakeError(f"no such repository has published SAEs; {nearest(file, there)}")
        return
    model, layer, *below = parts if len(parts) > 3 else [*parts, "", "", ""]
    found = re.fullmatch(r"L(0|[1-9][0-9]*)", layer)
    layers = {f"{sweep.model}/L{sweep.layer}" for sweep in catalogue.sweeps()}
    if not found or f"{model}/{layer}" not in layers:
        raise SaemakeError(
            f"no SAE of {model}/{layer} is published; {nearest(f'{model}/{layer}', layers)}"
        )
    match below:
        case ["figures", file]:
            drawn = [f"{name}.{suffix}" for name in figures.PUBLISHED for suffix in FIGURE_FORMATS]
            if file not in drawn:
                raise SaemakeError(f"'{file}' is not a figure; {nearest(file, drawn)}")
            _check_rebuilt(
                config,
                [s for s in catalogue.sweeps() if f"{s.model}/L{s.layer}" == f"{model}/{layer}"],
            )
        case [_, _, sparsity, file]:
            _check_file(config, catalogue, parts, sparsity, file)
        case [architecture, width, "comparison.json"]:
            sweep = names.Sweep(model, int(found[1]), architecture, width)
            if sweep not in catalogue.sweeps():
                swept = {str(one) for one in catalogue.sweeps()}
                raise SaemakeError(f"no SAE of {sweep} is published; {nearest(str(sweep), swept)}")
            _check_rebuilt(config, [sweep])
        case _:
            raise SaemakeError(
                "this is a folder; name a file in it:"
                f" {PUBLISHED}/{model}/{layer}/<architecture>/<width>/<sparsity>/comparison.json"
            )


def _check_rebuilt(config: Config, sweeps: list[names.Sweep]) -> None:
    """Whether the config trains all that is published of the sweeps."""
    catalogue = entries.load(config)
    for sweep in sweeps:
        for entry in catalogue.of_sweep(sweep).values():
            catalogue.wanted(config, entry)


def _check_file(
    config: Config, catalogue: Catalogue, parts: list[str], sparsity: str, file: str
) -> None:
    sae = "/".join(parts[:-1])
    there = {str(catalogue.name(entry)) for entry in catalogue.entries}
    if sae not in there:
        raise SaemakeError(f"no such SAE is published; {nearest(sae, there)}")
    if file not in FILES:
        raise SaemakeError(f"a published SAE has no file '{file}'; {nearest(file, FILES)}")
    if file not in WEIGHTS:
        names.check_target(config, _rebuilt([*parts[:-1], file]))


def _rebuilt(parts: list[str]) -> str:
    """The table under results/ that one under published/ goes with."""
    return "/".join([names.RESULTS, *parts[:-1], "metrics.json"])
