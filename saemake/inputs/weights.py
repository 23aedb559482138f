"""A language model's files: fetched once by a job that may use the network, and located by later
jobs without a network."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError

from saemake.base.errors import SaemakeError, first_line
from saemake.base.store import Store, sha256
from saemake.config.config import Config
from saemake.config.sections import Model
from saemake.hub import patiently, pinned, reached
from saemake.llm.shape import Shape, shape_of
from saemake.llm.weights import Weights
from saemake.paths.artifacts import FetchedFile
from saemake.recipes.inputs import model_recipe

HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def fetch(config: Config, name: str, revisions: Store) -> dict[str, Any]:
    """Fetch the model's files and check them against the config. Returns the content of model.json.
    `revisions` records the commit of the model's revision.

    Raises SaemakeError if the model cannot be reached or read, or if its layers, longest context or
    shape differ from the config's.
    """
    model = config.models[name]
    hub, revision = model.hub, None
    if hub is not None:
        revision = pinned(
            revisions, "model", hub, model.revision, lambda named: _fetched(hub, named, name).name
        )
    weights = locate(config, name, revision)
    from transformers import AutoConfig  # imports torch, which a plan does without

    try:
        lm_config = AutoConfig.from_pretrained(
            weights.folder, **weights.arguments(), local_files_only=True
        ).get_text_config()
    except (OSError, ValueError) as error:
        raise SaemakeError(
            f"model '{name}' ({weights.folder}) cannot be read: {first_line(error)}"
        ) from None
    if lm_config.num_hidden_layers != model.layers:
        raise SaemakeError(
            f"config key 'models.{name}.layers' says {model.layers}; the model has"
            f" {lm_config.num_hidden_layers}: write that"
        )
    longest = getattr(lm_config, "max_position_embeddings", None)
    if longest is not None and model.context_tokens > longest:
        raise SaemakeError(
            f"config key 'models.{name}.context_tokens' says {model.context_tokens}; the model"
            f" takes {longest} at most: write that or less"
        )
    if model.shape is not None:
        _check_shape(name, model.shape, lm_config)
    return {
        "model": name,
        "recipe_hash": model_recipe(config, name).hash,
        "hub": model.hub,
        "revision": revision,
        "layers": lm_config.num_hidden_layers,
        "d_model": lm_config.hidden_size,
        "vocabulary": lm_config.vocab_size,
        "sha256": {path.name: sha256(path) for path in _files(weights)},
    }


def _check_shape(name: str, configured: Shape, lm_config: Any) -> None:
    try:
        actual = shape_of(lm_config)
    except ValueError as error:
        raise SaemakeError(
            f"config key 'models.{name}.shape' does not fit: {error}; remove the key"
        ) from None
    for key, value in actual:
        if value != getattr(configured, key):
            raise SaemakeError(
                f"config key 'models.{name}.shape.{key}' says {getattr(configured, key)}; the model"
                f" has {value}: write that"
            )


def shape(config: Config, name: str) -> Shape:
    """The shape of a model, from the config or from the model's files on this machine. Uses no
    network.

    Raises SaemakeError if neither has it.
    """
    model = config.models[name]
    if model.shape is not None:
        return model.shape
    otherwise = f"give models.{name}.shape (config/README.md)"
    place = config.path_of(model) if model.hub is None else _config_folder(model)
    if place is None:
        raise SaemakeError(f"model '{name}' is not on this machine: {otherwise}")
    from transformers import AutoConfig  # as above

    try:
        lm_config = AutoConfig.from_pretrained(
            place,
            local_files_only=True,
            **({"gguf_file": model.gguf_file} if model.gguf_file else {}),
        )
        return shape_of(lm_config)
    except (OSError, ValueError) as error:
        raise SaemakeError(f"model '{name}' ({place}): {first_line(error)}; {otherwise}") from None


def shape_if_known(config: Config, name: str) -> Shape | None:
    """The shape of a model; None if neither the config nor files on this machine have it."""
    try:
        return shape(config, name)
    except SaemakeError:
        return None


def cached(config: Config, name: str) -> bool:
    """Whether a model's files are on this machine. Uses no network."""
    model = config.models[name]
    return model.hub is None or _config_folder(model) is not None


def _config_folder(model: Model) -> Path | None:
    """The folder of the model's revision in the Hub's cache; None if its config.json is not
    there."""
    assert model.hub is not None
    path = try_to_load_from_cache(model.hub, "config.json", revision=model.revision)
    return Path(path).parent if isinstance(path, str) else None


def locate(config: Config, name: str, revision: str | None, files: Iterable[str] = ()) -> Weights:
    """The files of a model at a revision, `files` among them. Raises SaemakeError if they are
    neither in the cache nor on the Hub."""
    model = config.models[name]
    folder = _folder(config, name, model, revision, files)
    return Weights(name, folder, model.gguf_file, model.dtype, model.lm_devices)


def read(config: Config, description: Path) -> tuple[Weights, dict[str, Any]]:
    """The weights and the content of a model.json. Raises SaemakeError if it is damaged, or
    describes another model than the config's."""
    way_out = f"delete {description} and run the same command again"
    try:
        described = json.loads(description.read_text())
    except (OSError, ValueError) as error:
        raise SaemakeError(
            f"{description}: cannot be read ({first_line(error)}); {way_out}"
        ) from None
    if described.get("recipe_hash") != model_recipe(config, described["model"]).hash:
        raise SaemakeError(f"{description}: describes another model than the config's; {way_out}")
    return locate(config, described["model"], described["revision"], described["sha256"]), described


def _folder(
    config: Config, name: str, model: Model, revision: str | None, files: Iterable[str]
) -> Path:
    if model.hub is None:
        return config.path_of(model)
    assert revision is not None
    return of_hub(model.hub, revision, name, files)


def of_hub(hub: str, revision: str, name: str | None = None, files: Iterable[str] = ()) -> Path:
    """The folder of a Hub model's files at a revision: from the cache if it has all of `files`,
    else from the Hub. `name` is the model's in the config.

    Raises SaemakeError if neither has it.
    """
    with contextlib.suppress(LocalEntryNotFoundError):
        folder = _snapshot(hub, revision, offline=True)
        # A download that was killed leaves a folder with some of the files.
        if all((folder / file).is_file() for file in files):
            return folder
    # The cache was emptied, or this is another machine.
    return _fetched(hub, revision, name)


def _fetched(hub: str, revision: str, name: str | None) -> Path:
    """The folder of a Hub model's files, from the cache or the Hub. Raises SaemakeError if neither
    has it."""
    all_of_it = f"`saemake build {FetchedFile(name)}` or " if name else ""
    otherwise = (
        f"where there is a network, type {all_of_it}`hf download {hub} --revision {revision}`, then"
        " run the same command again"
    )
    with reached(f"model '{hub}'", hub, revision, otherwise):
        return patiently(lambda: _snapshot(hub, revision, offline=False))


def _snapshot(hub: str, revision: str, *, offline: bool) -> Path:
    """The folder of a Hub model's files in the cache; its name is the commit."""
    return Path(
        snapshot_download(
            hub, revision=revision, allow_patterns=HUB_FILES, local_files_only=offline
        )
    )


def _files(weights: Weights) -> list[Path]:
    if weights.gguf_file:
        return [weights.folder / weights.gguf_file]
    kept = {Path(pattern).suffix for pattern in HUB_FILES}
    return sorted(path for path in weights.folder.iterdir() if path.suffix in kept)
