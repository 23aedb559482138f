"""What is wrong with a key of the configuration, and which file says it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from saemake.base.errors import SaemakeError, nearest


class ConfigError(SaemakeError):
    """A fault of one key; `read` adds the file that says it."""

    def __init__(self, key: str, what: str) -> None:
        self.key = key
        super().__init__(f"config key '{key}': {what}")


def override_place(override: Mapping[str, Any], section: str, model: str) -> Callable[[str], str]:
    """Where a key of `section` is said: by the model's own override or by the section itself."""
    return lambda key: f"models.{model}.{section}" if key in override else section


def validated(model: type[BaseModel], values: dict[str, Any], place: Callable[[str], str]) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = _first(error.errors(include_url=False))
    location = [str(part) for part in first["loc"]]
    if location[-1:] == ["[key]"]:  # pydantic's place of a refused name may be another word
        location[-2:] = [str(first["input"])]
    key = ".".join(filter(None, [place(location[0] if location else ""), *location]))
    if first["type"] == "extra_forbidden":
        raise ConfigError(key, f"unknown; {nearest(location[-1], fields_beside(model, location))}")
    if first["type"] == "missing":
        raise ConfigError(key, "missing")
    if first["type"] == "value_error":
        raise ConfigError(key, str(first["ctx"]["error"]))
    message = first["msg"][0].lower() + first["msg"][1:]
    raise ConfigError(key, f"{message}, not {first['input']!r}")


def _first(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """The error to report. A missing key may be there and misspelt, so an unknown key beside it
    comes first."""
    first = errors[0]
    unknown = (
        each
        for each in errors
        if each["type"] == "extra_forbidden" and each["loc"][:-1] == first["loc"][:-1]
    )
    return next(unknown, first) if first["type"] == "missing" else first


def fields_beside(model: Any, location: list[str]) -> list[str]:
    """The right names beside the last part of `location`, found by walking the typed sections."""
    current = model
    for part in location[:-1]:
        if hasattr(current, "model_fields"):
            current = current.model_fields[part].annotation
        else:  # dict[str, Section]: its last argument is the section
            current = current.__args__[-1]
        if isinstance(current, UnionType):  # Section | None
            current = current.__args__[0]
    return [name for name in current.model_fields if name != "root"]


def saying_file(key: str, raw: Mapping[str, Any], files: list[Path]) -> str:
    """The last file that says what `raw` has at `key`; where none does, what was on the command
    line; for a key that is missing, all files."""
    value = _at(raw, key)
    if value is None:
        return ", ".join(map(str, files))
    for path in reversed(files):
        if _at(yaml.safe_load(path.read_text()), key) == value:
            return str(path)
    return "--config"


def _at(node: Any, key: str) -> Any:
    """What stands at a dotted key; None where nothing does. A name may itself have dots."""
    if not key:
        return node
    if isinstance(node, list):
        index, _, rest = key.partition(".")
        return _at(node[int(index)], rest) if index.isdigit() and int(index) < len(node) else None
    if not isinstance(node, Mapping):
        return None
    values = (
        _at(below, key[len(str(name)) + 1 :])
        for name, below in node.items()
        if key == str(name) or key.startswith(f"{name}.")
    )
    return next((value for value in values if value is not None), None)
