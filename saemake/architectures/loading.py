"""Reading an SAE back: `saemake.load`, and the one function behind it that reads every ae.pt here.

An SAE is a file of weights and a config.json that describes it, in dictionary_learning's format.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from saemake import architectures
from saemake.architectures import Architecture
from saemake.architectures.description import TRANSCODER
from saemake.architectures.dictionary import Dictionary
from saemake.architectures.top_k_family import KeptDictionary
from saemake.base.errors import SaemakeError, first_line, nearest
from saemake.base.store import sha256

WEIGHTS = "ae.pt"
CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
# The folders that the workflow builds SAEs in, and how many parts the path of an SAE has there
# (None: as many as its owner gave it on the Hub).
BUILT = {"results": 6, "published": 6, "hub": None}
MOST_NAMED = 12
# Which files tell the sha256 of the ae.pt beside them, and where in them.
SUMS = {"provenance.json": ("ae_sha256",), "source.json": ("sha256", "ae.pt")}


def load(
    place: str | os.PathLike[str], device: str | torch.device, inference: str | None
) -> Dictionary:
    """The SAE of `saemake.load`, which documents it."""
    path = weights_file(Path(place))
    folder = path.parent.parent if path.parent.name == CHECKPOINTS else path.parent
    config = read_config(folder)
    try:
        on = torch.device(device)
        torch.empty(0, device=on)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise SaemakeError(f"device '{device}' cannot be used: {first_line(error)}") from None
    _check_sum(path)
    return read(path, config, on, inference, way_out=_way_out(path))


def _check_sum(path: Path) -> None:
    """Raise SaemakeError where an ae.pt is not what the file beside it says: the SAE that saemake
    trained or fetched. A checkpoint, or an SAE of somebody else, has no such file."""
    if path.name != WEIGHTS:
        return
    for file, place in SUMS.items():
        try:
            said = json.loads((path.parent / file).read_text())
            for key in place:
                said = said[key]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if said != sha256(path):
            raise SaemakeError(
                f"{path}: damaged or edited, its sha256 is not the one in {file}; {_way_out(path)}"
            )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of an SAE's folder. Raises SaemakeError where it is missing, or describes no
    SAE."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise SaemakeError(
            f"{folder}: no {CONFIG} there, which says what SAE it is; copy it beside {WEIGHTS}, or"
            " build the SAE again"
        ) from None
    except (OSError, ValueError) as error:
        raise SaemakeError(f"{path}: cannot be read ({first_line(error)})") from None
    if not isinstance(config, dict) or not isinstance(config.get("trainer"), dict):
        raise SaemakeError(f"{path}: describes no SAE: it has no section 'trainer'")
    return config


def kind_of(trainer: Mapping[str, Any], path: Path) -> type[Architecture]:
    """The architecture that config.json's `trainer` names. Several have one class of dictionary:
    the class of the trainer tells them apart, where it is one of ours.

    Raises SaemakeError where no architecture has that class; `path` is named in it.
    """
    kinds = [architectures.get(name) for name in architectures.names()]
    prefix = TRANSCODER if trainer.get("transcoder") else ""
    said = str(trainer.get("dict_class")).removeprefix(prefix)
    alike = [kind for kind in kinds if kind.dict_class == said]
    if not alike:
        raise SaemakeError(
            f"{path}: dict_class is '{said}', which no architecture here has;"
            f" {nearest(said, {kind.dict_class for kind in kinds})}"
        )
    trainer_class = str(trainer.get("trainer_class")).removeprefix(prefix)
    return next((kind for kind in alike if kind.trainer_class == trainer_class), alike[0])


def read(
    path: Path,
    config: Mapping[str, Any],
    device: torch.device,
    inference: str | None,
    way_out: str,
) -> Dictionary:
    """The dictionary in the file `path`, which `config` (config.json's content) describes: in
    float32, for inference. `inference` is its way of choosing latents, where it has several (None:
    its loader's).

    Raises SaemakeError, ending in `way_out`, where the file is damaged or another SAE's.
    """
    trainer = config["trainer"]
    kind = kind_of(trainer, path)
    if inference not in (None, *kind.inferences):
        raise SaemakeError(f"{path}: no inference '{inference}': {_choices(kind)}")
    try:
        dictionary = _filled(kind, trainer, _tensors(path), path.name != WEIGHTS)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        line = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise SaemakeError(
            f"{path}: not the SAE that its config.json describes ({line.split('. ')[0]}); {way_out}"
        ) from None
    dictionary.config = config
    if inference is not None:
        dictionary.inference = inference
    return dictionary.to(device).eval().requires_grad_(False)


def _filled(
    kind: type[Architecture], trainer: Mapping[str, Any], state: Mapping[str, Any], checkpoint: bool
) -> Dictionary:
    dictionary: Dictionary = kind.trainer().described_dictionary(trainer)
    dictionary.load_state_dict(state)
    # Where the largest are chosen, a latent that is no number may be passed over in silence.
    if not dictionary.is_finite():
        raise ValueError("a weight in it is no finite number")
    if isinstance(dictionary, KeptDictionary) and checkpoint:
        dictionary.set_k(int(state["k"]))  # a checkpoint's own, while k is still falling
    elif "k" in state and int(state["k"]) != trainer["k"]:
        raise ValueError(f"k is {int(state['k'])} in it and {trainer['k']} in config.json")
    return dictionary


def _tensors(path: Path) -> Mapping[str, Any]:
    """What the file holds; nothing in it is run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged bytes it raises nearly any kind
        raise ValueError(first_line(error)) from None
    if not isinstance(state, Mapping):
        raise ValueError("no state dict is in it")
    return state


def _choices(kind: type[Architecture]) -> str:
    if not kind.inferences:
        return f"{kind.dict_class} has one way of choosing latents; leave it out"
    return f"{kind.dict_class} has {' and '.join(kind.inferences)}"


def weights_file(place: Path) -> Path:
    """The file that `place` names: an SAE's folder, its ae.pt or a checkpoint."""
    if place.is_file():
        if place.suffix == ".pt":
            return place
        raise SaemakeError(f"{place}: no SAE; name its folder or its {WEIGHTS}")
    if not place.exists():
        raise SaemakeError(f"{place}: no such file or folder; {_instead(place)}")
    if (place / WEIGHTS).is_file():
        return place / WEIGHTS
    raise SaemakeError(f"{place}: not an SAE's folder (no {WEIGHTS} in it); {_inside(place)}")


def _inside(place: Path) -> str:
    """The SAEs below a folder that is not an SAE's own."""
    found = _checkpoints(place) if place.name == CHECKPOINTS else list(_saes(place))
    if not found:
        return _built(place) or "there is no SAE below it"
    more = ", ..." if len(found) > MOST_NAMED else ""
    return f"the SAEs below it are {', '.join(sorted(found)[:MOST_NAMED])}{more}"


def _checkpoints(place: Path) -> list[str]:
    return [path.name for path in place.glob("ae_*.pt")]


def _saes(place: Path) -> Iterator[str]:
    """The folders of SAEs below `place`; hidden ones (the store) are passed over, and the search
    ends when there are more than are named."""
    count = 0
    for folder, inside, files in os.walk(place):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        if WEIGHTS in files:
            inside.clear()
            count += 1
            yield str(Path(folder).relative_to(place))
        if count > MOST_NAMED:
            return


def _instead(place: Path) -> str:
    """What builds a path that is missing, and the nearest path that exists."""
    missing = place
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    there = [path.name for path in missing.parent.iterdir() if not path.name.startswith(".")]
    where = missing.parent if missing.parent != Path() else Path.cwd()
    close = f"in {where}: {nearest(missing.name, there) if there else 'nothing'}"
    built = _built(place)
    return f"{built}, or look {close}" if built else close


def _built(place: Path) -> str:
    """What to run to build an SAE at that path; empty where it is not the path of an SAE."""
    below = place.parts
    for top in BUILT:
        if top in below:
            below = below[below.index(top) :]
            break
    else:
        return ""
    target = list(below) if place.suffix == ".pt" else [*below, WEIGHTS]
    folder = target[: -2 if target[-2:-1] == [CHECKPOINTS] else -1]
    parts = BUILT[top]
    is_sae = len(folder) == parts if parts else folder[-1].startswith("trainer_")
    return f"build it with `snakemake {'/'.join(target)} --cores 1`" if is_sae else ""


def _way_out(path: Path) -> str:
    """What to do about a damaged file."""
    built = _built(path)
    if not built:
        return "fetch or copy both files again"
    return f"delete it and {built}"
