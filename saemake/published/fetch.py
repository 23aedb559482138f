"""Published weights from the Hub: a commit that is written down once, then that one's files, with
the Hub's own checksums; nothing in them is run."""

import io
import json
from collections.abc import Mapping
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
from saemake.paths.catalogue import PUBLISHED, Entry
from saemake.paths.files import REPOSITORIES

WEIGHTS = "ae.pt"
CONFIG = "config.json"
BUNDLED = "eval_results.json"
# What dictionary_learning's trainers call a sparsity in config.json.
SPARSITY_KEYS = {"k": ["k"], "l0": ["target_l0"], "penalty": ["l1_penalty", "sparsity_penalty"]}


def pin(repository: str, revision: str) -> dict[str, str]:
    """The commit that a revision of a repository names today.

    Raises SaemakeError where it cannot be reached or is none.
    """
    with _reached(repository, revision):
        commit = patiently(lambda: HfApi().model_info(repository, revision=revision)).sha
    assert commit is not None
    return {"repository": repository, "revision": revision, "commit": commit}


def fetch(entry: Entry, pinned: Path) -> dict[str, bytes]:
    """The files of a published SAE, at the commit in `pinned`: ae.pt, config.json and source.json,
    which says where they are from and what the authors' eval_results.json has, if there is one.

    Raises SaemakeError where a file cannot be reached, has not the Hub's checksum, or is not what
    the catalogue says.
    """
    commit = _commit(pinned)
    what = f"{entry.repository}/{entry.path}"
    with _reached(entry.repository, commit):
        there = _listed(entry, commit)
        for name in (WEIGHTS, CONFIG):
            if name not in there:
                raise SaemakeError(f"{what}: no {name} there at {commit}")
        names = [name for name in (WEIGHTS, CONFIG, BUNDLED) if name in there]
        paths = {name: _downloaded(entry, commit, name) for name in names}
    sums = {name: sha256(path) for name, path in paths.items()}
    for name, listed in there.items():
        # Of an LFS file the Hub tells the sha256, of another git's hash.
        found, told = sums.get(name), listed.lfs and listed.lfs.sha256
        if name in paths and told is None:
            found, told = git_hash(paths[name].read_bytes()), listed.blob_id
        if found is not None and found != told:
            raise SaemakeError(
                f"{what}/{name}: its checksum is {found}, the Hub says {told};"
                f" delete {paths[name].resolve()} and run the same command again"
            )
    content = {name: path.read_bytes() for name, path in paths.items()}
    check(entry, content[WEIGHTS], _mapping(content[CONFIG], f"{what}/{CONFIG}"))
    source = {
        "repository": entry.repository,
        "path": entry.path,
        "commit": commit,
        "sha256": sums,
        "eval_results": (
            _mapping(content[BUNDLED], f"{what}/{BUNDLED}") if BUNDLED in content else None
        ),
    }
    return {
        WEIGHTS: content[WEIGHTS],
        CONFIG: content[CONFIG],
        "source.json": (json.dumps(source, indent=1) + "\n").encode(),
    }


def check(entry: Entry, weights: bytes, config: Mapping[str, Any]) -> None:
    """Raise SaemakeError where a published ae.pt or config.json is not of the SAE that the
    catalogue says: of another class, width or layer, with other keys or shapes, or with more than
    tensors in it (which is not run)."""
    what = f"{entry.repository}/{entry.path}"
    kind = architectures.get(entry.architecture)
    trainer = config.get("trainer")
    expected = {
        "dict_class": kind.dict_class,
        "dict_size": entry.latents,
        "layer": entry.layer,
    }
    if not isinstance(trainer, Mapping):
        raise SaemakeError(f"{what}/{CONFIG}: says nothing of a trainer")
    for key, value in expected.items():
        if trainer.get(key) != value:
            raise SaemakeError(
                f"{what}/{CONFIG}: {key} is {trainer.get(key)!r}, the catalogue says {value!r}"
            )
    for key in SPARSITY_KEYS[kind.sparsity]:
        if trainer.get(key, entry.sparsity) != entry.sparsity:
            raise SaemakeError(
                f"{what}/{CONFIG}: {key} is {trainer[key]!r}, the catalogue says {entry.sparsity!r}"
            )
    state = _tensors(weights, f"{what}/{WEIGHTS}")
    try:
        wanted = kind.trainer().make_dictionary(trainer).state_dict()
    except KeyError as error:
        raise SaemakeError(f"{what}/{CONFIG}: its trainer has no {error}") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise SaemakeError(
            f"{what}/{CONFIG}: its trainer describes no {kind.dict_class} ({first_line(error)})"
        ) from None
    if set(state) != set(wanted):
        raise SaemakeError(
            f"{what}/{WEIGHTS}: has {', '.join(map(str, state))}; expected {', '.join(wanted)}"
        )
    for key, tensor in wanted.items():
        if state[key].shape != tensor.shape:
            raise SaemakeError(
                f"{what}/{WEIGHTS}: {key} has the shape {tuple(state[key].shape)}; expected"
                f" {tuple(tensor.shape)}"
            )
        if not state[key].isfinite().all():
            raise SaemakeError(f"{what}/{WEIGHTS}: {key} has values that are not finite")
    if "k" in state and int(state["k"]) != trainer["k"]:
        raise SaemakeError(
            f"{what}/{WEIGHTS}: k is {int(state['k'])} in it and {trainer['k']} in {CONFIG}"
        )


def _tensors(weights: bytes, what: str) -> Mapping[str, Tensor]:
    """A state dict; whatever the unpickler says of one that is none is a refusal."""
    try:
        state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged bytes it raises nearly any kind
        reason = type(error).__name__
        raise SaemakeError(f"{what}: refused, it is not tensors alone ({reason})") from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise SaemakeError(f"{what}: refused, it is not tensors alone (no state dict)")
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
    """The files in the SAE's folder, by name."""
    api = HfApi()
    paths = [f"{entry.path}/{name}" for name in (WEIGHTS, CONFIG, BUNDLED)]
    found = patiently(lambda: api.get_paths_info(entry.repository, paths, revision=commit))
    files = {Path(file.path).name: file for file in found if isinstance(file, RepoFile)}
    if not files:
        folders = patiently(lambda: api.list_repo_files(entry.repository, revision=commit))
        known = {str(Path(file).parent) for file in folders if Path(file).name == WEIGHTS}
        raise SaemakeError(
            f"{entry.repository}/{entry.path}: no such folder at {commit};"
            f" {nearest(entry.path, known)}"
        )
    return files


def _downloaded(entry: Entry, commit: str, name: str) -> Path:
    file = f"{entry.path}/{name}"
    return Path(patiently(lambda: hf_hub_download(entry.repository, file, revision=commit)))


def _mapping(content: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise SaemakeError(f"{what}: no JSON ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise SaemakeError(f"{what}: no JSON object")
    return found


def _reached(repository: str, revision: str) -> Any:
    target = f"{PUBLISHED}/{REPOSITORIES}/{repository}.json"
    return reached(
        f"the published '{repository}'",
        repository,
        revision,
        f"type `snakemake {target}` and the targets that need it where there is a network; the"
        " comparison with the catalogue alone (against_catalogue.json) needs none",
    )
