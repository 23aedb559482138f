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
from saemake.config.depth import layers_if_known
from saemake.config.sections import Model
from saemake.hub import patiently, pinned, reached
from saemake.inputs.converted import convert
from saemake.llm.shape import Shape, shape_of
from saemake.llm.weights import Weights
from saemake.paths.artifacts import FetchedFile
from saemake.paths.names import CONVERTED, STORE
from saemake.recipes.inputs import model_recipe

HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
# Fetched too where the config lets them run.
CODE_FILES = ["*.py"]
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")


def fetch(config: Config, name: str, revisions: Store) -> dict[str, Any]:
    """Fetch the model's files and check them against the config. Returns the content of model.json.
    `revisions` records the commit of the model's revision.

    Raises SaemakeError if the model cannot be reached or read, or if its layers, longest context or
    shape differ from the config's.
    """
    model = config.models[name]
    hub, revision, code = model.hub, None, model.trust_remote_code
    if hub is not None:
        revision = pinned(
            *(revisions, "model", hub, model.revision),
            lambda named: _fetched(hub, named, name, code=code).name,
        )
    weights = locate(config, name, revision)
    from saemake.llm import loading  # imports torch, which a plan does without

    if weights.trust_remote_code:
        _check_own_code(weights)
    outer = loading.read_config(weights)
    loading.check_causal(weights, outer)
    _check_files(weights)
    layers, lm_config = loading.layers_in(outer), outer.get_text_config()
    _check_layers(config, name, layers)
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
        "recipe_hash": model_recipe(config, name, layers).hash,
        "hub": model.hub,
        "revision": revision,
        "layers": layers,
        "d_model": loading.width_in(outer),
        "vocabulary": lm_config.vocab_size,
        "sha256": {path.name: sha256(path) for path in _files(weights)},
    }


def _check_layers(config: Config, name: str, layers: int) -> None:
    """Raise SaemakeError where the config says other layers than the model has, or where paths
    cannot be checked against its files."""
    model = config.models[name]
    said = model.layers
    if said is None and model.hub is None:
        said = layers_if_known(config, name)
    if said is not None and said != layers:
        raise SaemakeError(
            f"config key 'models.{name}.layers' says {said}; the model has {layers}: write that"
        )
    if said is None and model.hub is None:
        raise SaemakeError(
            f"model '{name}': its files do not say how many layers it has, where saemake looks:"
            f" write models.{name}.layers: {layers}"
        )
    for key, most in (("lm_devices", layers), ("suite.layers", layers - 1)):
        asked = model.lm_devices if key == "lm_devices" else max(model.suite.layers)
        if asked > most:
            raise SaemakeError(
                f"config key 'models.{name}.{key}' says {asked}; the model has {layers} layers:"
                f" write {most} or less"
            )


def _check_files(weights: Weights) -> None:
    """Raise SaemakeError where no weights are in the folder, or a part of them is not."""
    if weights.gguf_file is not None:
        return
    place = f"model '{weights.name}': {weights.folder}"
    for index in (f"{stem}.index.json" for stem in WEIGHTS_FILES):
        if (weights.folder / index).is_file():
            parts = set(json.loads((weights.folder / index).read_text())["weight_map"].values())
            missing = sorted(part for part in parts if not (weights.folder / part).is_file())
            if missing:
                raise SaemakeError(f"{place} lacks {missing[0]}, which its {index} names")
            return
    if not any((weights.folder / file).is_file() for file in WEIGHTS_FILES):
        ggufs = sorted(path.name for path in weights.folder.glob("*.gguf"))
        way_out = (
            f"write models.{weights.name}.gguf_file: {ggufs[0]}"
            if ggufs
            else "save the model there as safetensors (`save_pretrained`)"
        )
        raise SaemakeError(f"{place} has no weights ({' or '.join(WEIGHTS_FILES)}): {way_out}")


def _check_own_code(weights: Weights) -> None:
    """Raise SaemakeError where the code is in another repository, whose commit nothing names."""
    try:
        named = json.loads((weights.folder / "config.json").read_text()).get("auto_map", {})
    except (OSError, ValueError, AttributeError):
        return  # whoever reads the config says it
    for reference in named.values():
        if "--" in str(reference):
            raise SaemakeError(
                f"model '{weights.name}': its code is in another repository"
                f" ({str(reference).partition('--')[0]}), which may change: copy model and code"
                " into a folder, and name the folder"
            )


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
    from saemake.llm.loading import read_config  # as above

    lm_config = read_config(_weights(model, name, place))
    try:
        return shape_of(lm_config, own_code=model.trust_remote_code)
    except (ValueError, AttributeError) as error:  # as configs that name their sizes otherwise
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
    return _weights(model, name, folder)


def _weights(model: Model, name: str, folder: Path) -> Weights:
    return Weights(
        name,
        folder,
        model.gguf_file,
        model.dtype,
        model.lm_devices,
        trust_remote_code=model.trust_remote_code,
        quantization=model.quantization,
    )


def read(config: Config, description: Path) -> tuple[Weights, dict[str, Any]]:
    """The weights and the content of a model.json. A GGUF model's are converted, again where the
    store no longer has them. Raises SaemakeError if the description is damaged, or of another model
    than the config's."""
    way_out = f"delete {description} and run the same command again"
    try:
        described = json.loads(description.read_text())
    except (OSError, ValueError) as error:
        raise SaemakeError(
            f"{description}: cannot be read ({first_line(error)}); {way_out}"
        ) from None
    if described.get("recipe_hash") != model_recipe(config, described["model"]).hash:
        raise SaemakeError(f"{description}: describes another model than the config's; {way_out}")
    weights = locate(config, described["model"], described["revision"], described["sha256"])
    if weights.gguf_file is not None:
        weights = convert(config, weights, Store(STORE, CONVERTED))
    return weights, described


def _folder(
    config: Config, name: str, model: Model, revision: str | None, files: Iterable[str]
) -> Path:
    if model.hub is None:
        return config.path_of(model)
    assert revision is not None
    return of_hub(model.hub, revision, name, files, code=model.trust_remote_code)


def of_hub(
    hub: str,
    revision: str,
    name: str | None = None,
    files: Iterable[str] = (),
    *,
    code: bool = False,
) -> Path:
    """The folder of a Hub model's files at a revision: from the cache if it has all of `files`,
    else from the Hub. `name` is the model's in the config; `code` fetches its Python code too.

    Raises SaemakeError if neither has it.
    """
    with contextlib.suppress(LocalEntryNotFoundError):
        folder = _snapshot(hub, revision, offline=True, code=code)
        # A download that was killed leaves a folder with some of the files.
        if all((folder / file).is_file() for file in files):
            return folder
    # The cache was emptied, or this is another machine.
    return _fetched(hub, revision, name, code=code)


def _fetched(hub: str, revision: str, name: str | None, *, code: bool) -> Path:
    """The folder of a Hub model's files, from the cache or the Hub. Raises SaemakeError if neither
    has it."""
    all_of_it = f"`saemake build {FetchedFile(name)}` or " if name else ""
    otherwise = (
        f"where there is a network, type {all_of_it}`hf download {hub} --revision {revision}`, then"
        " run the same command again"
    )
    with reached(f"model '{hub}'", hub, revision, otherwise):
        return patiently(lambda: _snapshot(hub, revision, offline=False, code=code))


def _snapshot(hub: str, revision: str, *, offline: bool, code: bool) -> Path:
    """The folder of a Hub model's files in the cache; its name is the commit."""
    patterns = HUB_FILES + CODE_FILES if code else HUB_FILES
    return Path(
        snapshot_download(hub, revision=revision, allow_patterns=patterns, local_files_only=offline)
    )


def _files(weights: Weights) -> list[Path]:
    if weights.gguf_file:
        return [weights.folder / weights.gguf_file]
    patterns = HUB_FILES + CODE_FILES if weights.trust_remote_code else HUB_FILES
    kept = {Path(pattern).suffix for pattern in patterns}
    return sorted(path for path in weights.folder.iterdir() if path.suffix in kept)
