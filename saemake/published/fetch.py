"""Published weights from the Hub. The commit is recorded once; then the files of that commit are
fetched and compared with the Hub's checksums. No code in them is run."""

import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash
from torch import Tensor

from saemake import architectures
from saemake.base.errors import SaemakeError, first_line, nearest
from saemake.base.store import sha256
from saemake.hub import patiently, reached
from saemake.paths.artifacts import FetchedFile
from saemake.paths.catalogue import Entry

WEIGHTS = "ae.pt"
CONFIG = "config.json"
BUNDLED = "eval_results.json"
# The keys of a sparsity value in config.json of dictionary_learning's trainers, by kind.
SPARSITY_KEYS = {"k": ["k"], "l0": ["target_l0"], "penalty": ["l1_penalty", "sparsity_penalty"]}


def pin(repository: str, revision: str, model: str) -> dict[str, str]:
    """The commit that a revision of a repository names today. It has published SAEs of `model`.

    Raises SaemakeError if the repository cannot be reached or has no such revision.
    """
    with _reached(repository, revision, model):
        commit = patiently(lambda: HfApi().model_info(repository, revision=revision)).sha
    assert commit is not None
    return {"repository": repository, "revision": revision, "commit": commit}


def fetch(entry: Entry, pinned: Path) -> dict[str, bytes]:
    """The files of a published SAE at the commit in `pinned`: ae.pt, config.json and source.json.
    The last says where the files are from, and has the content of the authors' eval_results.json if
    there is one.

    Raises SaemakeError if a file cannot be reached, has another checksum than the Hub says, or does
    not match the catalogue.
    """
    commit = _commit(pinned)
    folder = f"{entry.repository}/{entry.path}"
    with _reached(entry.repository, commit, entry.model):
        listed = _listed(entry, commit)
        for name in (WEIGHTS, CONFIG):
            if name not in listed:
                raise SaemakeError(f"{folder}: no {name} in it at {commit}")
        names = [name for name in (WEIGHTS, CONFIG, BUNDLED) if name in listed]
        paths = {name: _downloaded(entry, commit, name) for name in names}
    sums = {name: sha256(path) for name, path in paths.items()}
    for name, file in listed.items():
        # The Hub lists the sha256 of LFS files, and git's hash of other files.
        actual, expected = sums.get(name), file.lfs and file.lfs.sha256
        if name in paths and expected is None:
            actual, expected = git_hash(paths[name].read_bytes()), file.blob_id
        if actual is not None and actual != expected:
            raise SaemakeError(
                f"{folder}/{name}: its checksum is {actual}, the Hub says {expected};"
                f" delete {paths[name].resolve()} and run the same command again"
            )
    content = {name: path.read_bytes() for name, path in paths.items()}
    check(entry, content[WEIGHTS], _mapping(content[CONFIG], f"{folder}/{CONFIG}"))
    source = {
        "repository": entry.repository,
        "path": entry.path,
        "commit": commit,
        "sha256": sums,
        "eval_results": (
            _mapping(content[BUNDLED], f"{folder}/{BUNDLED}") if BUNDLED in content else None
        ),
    }
    return {
        WEIGHTS: content[WEIGHTS],
        CONFIG: content[CONFIG],
        "source.json": (json.dumps(source, indent=1) + "\n").encode(),
    }


def check(entry: Entry, weights: bytes, config: Mapping[str, Any]) -> None:
    """Raise SaemakeError if a published ae.pt or config.json does not match the catalogue's SAE: it
    has another class, width, layer or sparsity, other keys or shapes, values that are not finite,
    or contents other than tensors. Such contents are never run."""
    folder = f"{entry.repository}/{entry.path}"
    kind = architectures.get(entry.architecture)
    trainer = config.get("trainer")
    expected = {
        "dict_class": kind.dict_class,
        "dict_size": entry.latents,
        "layer": entry.layer,
    }
    if not isinstance(trainer, Mapping):
        raise SaemakeError(f"{folder}/{CONFIG}: it has no 'trainer' section")
    for key, value in expected.items():
        if trainer.get(key) != value:
            raise SaemakeError(
                f"{folder}/{CONFIG}: {key} is {trainer.get(key)!r}, the catalogue says {value!r}"
            )
    for key in SPARSITY_KEYS[kind.sparsity]:
        if trainer.get(key, entry.sparsity) != entry.sparsity:
            raise SaemakeError(
                f"{folder}/{CONFIG}: {key} is {trainer[key]!r}, the catalogue says"
                f" {entry.sparsity!r}"
            )
    state = _tensors(weights, f"{folder}/{WEIGHTS}")
    try:
        expected_state = kind.trainer().make_dictionary(trainer).state_dict()
    except KeyError as error:
        raise SaemakeError(f"{folder}/{CONFIG}: its trainer has no {error}") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise SaemakeError(
            f"{folder}/{CONFIG}: its trainer describes no {kind.dict_class} ({first_line(error)})"
        ) from None
    if set(state) != set(expected_state):
        raise SaemakeError(
            f"{folder}/{WEIGHTS}: has {', '.join(map(str, state))}; expected"
            f" {', '.join(expected_state)}"
        )
    for key, tensor in expected_state.items():
        if state[key].shape != tensor.shape:
            raise SaemakeError(
                f"{folder}/{WEIGHTS}: {key} has the shape {tuple(state[key].shape)}; expected"
                f" {tuple(tensor.shape)}"
            )
        if not state[key].isfinite().all():
            raise SaemakeError(f"{folder}/{WEIGHTS}: {key} has values that are not finite")
    if "k" in state and int(state["k"]) != trainer["k"]:
        raise SaemakeError(
            f"{folder}/{WEIGHTS}: k is {int(state['k'])} in it and {trainer['k']} in {CONFIG}"
        )


def _tensors(weights: bytes, path: str) -> Mapping[str, Tensor]:
    """The state dict in `weights`. Raises SaemakeError if they hold anything but tensors."""
    try:
        state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise nearly any exception
        reason = type(error).__name__
        raise SaemakeError(f"{path}: refused, it is not tensors alone ({reason})") from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise SaemakeError(f"{path}: refused, it is not tensors alone (no state dict)")
    return state


def _commit(pinned: Path) -> str:
    try:
        return json.loads(pinned.read_text())["commit"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SaemakeError(
            f"{pinned}: cannot be read ({first_line(error)}); delete it and run the same command"
            " again"
        ) from None


def _listed(entry: Entry, commit: str) -> dict[str, RepoFile]:
    """The files in the SAE's folder on the Hub, by name."""
    api = HfApi()
    paths = [f"{entry.path}/{name}" for name in (WEIGHTS, CONFIG, BUNDLED)]
    infos = patiently(lambda: api.get_paths_info(entry.repository, paths, revision=commit))
    files = {Path(file.path).name: file for file in infos if isinstance(file, RepoFile)}
    if not files:
        all_files = patiently(lambda: api.list_repo_files(entry.repository, revision=commit))
        known = {str(Path(file).parent) for file in all_files if Path(file).name == WEIGHTS}
        raise SaemakeError(
            f"{entry.repository}/{entry.path}: no such folder at {commit};"
            f" {nearest(entry.path, known)}"
        )
    return files


def _downloaded(entry: Entry, commit: str, name: str) -> Path:
    file = f"{entry.path}/{name}"
    return Path(patiently(lambda: hf_hub_download(entry.repository, file, revision=commit)))


def _mapping(content: bytes, path: str) -> dict[str, Any]:
    try:
        mapping = json.loads(content)
    except ValueError as error:
        raise SaemakeError(f"{path}: not JSON ({first_line(error)})") from None
    if not isinstance(mapping, dict):
        raise SaemakeError(f"{path}: not a JSON object")
    return mapping


def _reached(repository: str, revision: str, model: str) -> AbstractContextManager[None]:
    return reached(
        f"the published '{repository}'",
        repository,
        revision,
        f"where there is a network, type `saemake build {FetchedFile(model, published=True)}`, then"
        " run the same command again; the comparison with the catalogue alone"
        " (against_catalogue.json) needs none",
    )
