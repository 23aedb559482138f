"""How many blocks a model's files say that it has, read without torch, transformers or a network:
paths are checked against it when the Snakefile is parsed."""

import functools
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from saemake.base.errors import SaemakeError, first_line

# The keys under which families write the number of blocks in config.json.
KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
# The sections in which models of text and images keep their text model's keys.
SECTIONS = ("text_config", "llm_config", "language_config")

GGUF_MAGIC = b"GGUF"
# The types of GGUF's metadata (its specification's numbers): how `struct` reads each; strings and
# arrays are read by hand.
SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


@functools.cache
def blocks_in(folder: Path, gguf_file: str | None) -> int | None:
    """The number of blocks of the model in a folder, or of its GGUF file; None where the file does
    not say it. Raises SaemakeError where the file is not there or cannot be read."""
    path = folder / (gguf_file or "config.json")
    try:
        if gguf_file is None:
            return _in_config(json.loads(path.read_text()))
        with path.open("rb") as file:
            return _in_gguf(file)
    except FileNotFoundError:
        raise SaemakeError(f"{path}: not there; a model's folder has one") from None
    except (OSError, ValueError, struct.error) as error:
        kind = "JSON" if gguf_file is None else "GGUF"
        raise SaemakeError(f"{path}: not valid {kind} ({first_line(error)})") from None


def _in_config(content: Any) -> int | None:
    if not isinstance(content, Mapping):
        raise ValueError("it is no object")
    sections = [content[key] for key in SECTIONS if isinstance(content.get(key), Mapping)]
    found = (section[key] for section in (content, *sections) for key in KEYS if key in section)
    return next((count for count in found if isinstance(count, int) and count > 0), None)


def _in_gguf(file: BinaryIO) -> int | None:
    """Metadata come first in the file, `block_count` before the vocabulary as a rule, and reading
    ends there."""
    if file.read(4) != GGUF_MAGIC:
        raise ValueError("it does not begin with GGUF")
    _version, _tensors, keys = _read(file, "IQQ")
    for _ in range(keys):
        key, (kind,) = _string(file), _read(file, "I")
        value = _value(file, kind)
        if key.endswith(b".block_count"):
            return int(value)
    return None


def _value(file: BinaryIO, kind: int) -> Any:
    """A value of the metadata; of an array, None."""
    if kind == STRING:
        return _string(file)
    if kind != ARRAY:
        return _read(file, _scalar(kind))[0]
    of, count = _read(file, "IQ")
    if of in (STRING, ARRAY):
        for _ in range(count):
            _value(file, of)
    else:
        file.seek(count * struct.calcsize(_scalar(of)), 1)
    return None


def _scalar(kind: int) -> str:
    if kind not in SCALARS:
        raise ValueError(f"type {kind} in its metadata is unknown")
    return SCALARS[kind]


def _string(file: BinaryIO) -> bytes:
    (length,) = _read(file, "Q")
    return file.read(length)


def _read(file: BinaryIO, what: str) -> tuple[Any, ...]:
    """Little-endian numbers without padding, as GGUF has them."""
    return struct.unpack(f"<{what}", file.read(struct.calcsize(f"<{what}")))
