"""The files of a trained SAE, written and read in dictionary_learning's format."""

import csv
import importlib.metadata
import io
import json
import platform
from pathlib import Path
from typing import Any

import torch

from saemake import architectures, kernels
from saemake.architectures import loading
from saemake.architectures.description import TRANSCODER
from saemake.architectures.trainer import Dictionary, Trainer
from saemake.base import devices
from saemake.base.errors import SaemakeError, build_again, first_line
from saemake.base.store import sha256
from saemake.base.version import __version__
from saemake.llm.hookpoint import RESID_POST
from saemake.recipes.kinds import SaeRecipe

PROVENANCE_PACKAGES = ("torch", "transformers", "nnsight", "datasets", "snakemake")
# Packages whose version can change an SAE's bytes.
BYTES_DEPEND_ON = ("torch", "transformers", "nnsight")


def sae_bytes(dictionary: Dictionary) -> bytes:
    """The state dict as ae.pt's bytes. Saved to memory: torch.save writes a file's name into it."""
    state = {
        key: value.detach().cpu().contiguous() for key, value in dictionary.state_dict().items()
    }
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def config_json(
    trained: Trainer, recipe: SaeRecipe, norm_factor: float, target_norm_factor: float | None = None
) -> str:
    """config.json: `trainer` and `buffer` as dictionary_learning writes them, the norm factor (of a
    transcoder also that of its targets), which dictionary_learning does not write, and `drop` if
    positions are left out. It says nothing
    of the machine and has no name of the SAE, since a recipe may have several names."""
    tokens, drop = recipe.tokens, recipe.training.drop
    content = {
        "trainer": {
            **trained.trainer_config(),
            "layer": recipe.layer,
            "submodule_name": f"{recipe.read}_layer_{recipe.layer}",
            **({"site": site} if (site := recipe.hookpoint.site) != RESID_POST else {}),
            "norm_factor": norm_factor,
            **(
                {"target_norm_factor": target_norm_factor} if recipe.hookpoint.is_transcoder else {}
            ),
        },
        "buffer": {
            "d_submodule": trained.dictionary.d_model,
            "io": "in_and_out" if recipe.hookpoint.is_transcoder else "out",
            "n_ctxs": recipe.buffer_tokens // tokens.context_tokens,
            "ctx_len": tokens.context_tokens,
            "refresh_batch_size": recipe.llm_batch_contexts,
            "out_batch_size": recipe.training.batch_tokens,
            **({"drop": drop.model_dump(mode="json")} if drop.on else {}),
        },
    }
    return json.dumps(content, indent=4) + "\n"


def named(lm_name: str, stored: bytes) -> bytes:
    """A stored config.json with the language model's name added."""
    content = json.loads(stored)
    content["trainer"]["lm_name"] = lm_name
    return (json.dumps(content, indent=4) + "\n").encode()


def provenance_json(recipe: SaeRecipe, device: torch.device, more: dict[str, Any]) -> str:
    """provenance.json: the whole recipe, its hash, the entries of `more` (checksums, revisions,
    times), the software and the kind of device. It has no host, user, path or access token."""
    content = {
        "recipe_hash": recipe.hash,
        "recipe": recipe.model_dump(mode="json"),
        **more,
        "device": devices.describe(device),
        "software": {
            "saemake": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in PROVENANCE_PACKAGES},
            **triton_on(device),
        },
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _version(package: str) -> str | None:
    """A package's version. None if it is not installed: training needs neither `datasets` nor
    snakemake."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_provenance(folder: Path) -> dict[str, Any]:
    """The content of provenance.json in an SAE's folder. Raises SaemakeError if the file is missing
    or damaged."""
    path = folder / "provenance.json"
    try:
        content = json.loads(path.read_text())
        if {"recipe", "recipe_hash", "ae_sha256", "device", "software"} <= set(content):
            return content
        raise ValueError("entries are missing")
    except (OSError, ValueError, TypeError) as error:
        raise SaemakeError(
            f"{path}: cannot be read ({first_line(error)}); {build_again(path)}"
        ) from None


def checked_sum(folder: Path, recipe_hash: str) -> str:
    """sha256 of an SAE's ae.pt. Raises SaemakeError if it differs from the sum in provenance.json,
    or if the SAE was made by another recipe."""
    path = folder / "ae.pt"
    ae_sha256, provenance = sha256(path), read_provenance(folder)
    if ae_sha256 != provenance["ae_sha256"]:
        raise SaemakeError(
            f"{path}: damaged, its sha256 differs from the one in provenance.json;"
            f" {build_again(path)}"
        )
    if provenance["recipe_hash"] != recipe_hash:
        raise SaemakeError(f"{path}: its recipe is not the config's; {build_again(path)}")
    return ae_sha256


def circumstances(device: torch.device) -> dict[str, Any]:
    """All that an SAE's bytes depend on besides its recipe: the kind of device and the software."""
    versions = {name: importlib.metadata.version(name) for name in BYTES_DEPEND_ON}
    return {"device": devices.describe(device), **versions, **triton_on(device)}


def triton_on(device: torch.device) -> dict[str, str | None]:
    """The version of Triton that trains on a GPU, or "not used"; nothing on a CPU."""
    if device.type == "cpu":
        return {}
    return {"triton": kernels.version() if kernels.used_on(device) else "not used"}


def training_csv(rows: list[dict[str, float]]) -> str:
    """training.csv: one row per logged step."""
    content = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(content, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return content.getvalue()


def load(
    folder: Path,
    architecture: str,
    width: int,
    device: torch.device,
    inference: str | None = None,
    file: str = "ae.pt",
) -> Dictionary:
    """The dictionary in `folder` (its `file` and config.json), in float32, for inference.
    `inference` selects how latents are chosen, if the architecture has several ways; None is the
    way of its loader.

    Raises SaemakeError if the files are damaged, or of another architecture or width.
    """
    path = folder / file
    kind = architectures.get(architecture)
    config = loading.read_config(folder)
    trainer = config["trainer"]
    prefix = TRANSCODER if trainer.get("transcoder") else ""
    dict_class = str(trainer.get("dict_class")).removeprefix(prefix)
    latents = trainer.get("dict_size")
    if bool(trainer.get("skip")) != kind.skip:
        raise SaemakeError(
            f"{path}: its config.json says {'a' if trainer.get('skip') else 'no'} skip connection,"
            f" its path {architecture}; {build_again(path)}"
        )
    if (dict_class, latents) != (kind.dict_class, width):
        raise SaemakeError(
            f"{path}: its config.json says {dict_class} of {latents} latents, its path"
            f" {kind.dict_class} of {width}; {build_again(path)}"
        )
    return loading.read(path, config, device, inference, build_again(path))
