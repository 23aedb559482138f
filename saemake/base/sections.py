"""The base of every typed section of the configuration, and the number types they share."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Closed(BaseModel):
    """A section that refuses unknown keys and does not convert between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def laid_over(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A section with a model's overrides. Nested sections are merged key by key."""
    merged = {**values, **overrides}
    for key, value in overrides.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), Mapping):
            merged[key] = laid_over(values[key], value)
    return merged


def _number(value: Any) -> Any:
    """Converts strings to floats: YAML 1.1 reads `3e-4` as a string, but means a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def whole(value: Any) -> Any:
    """Converts digits to int: Snakemake's `--config section='{key: 1}'` makes every value a
    string."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def flag(value: Any) -> Any:
    """Converts the strings 'true' and 'false', for the same reason as `whole`."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _name(value: Any) -> Any:
    """Converts numbers to names: `512` is a valid name, but YAML reads it as a number. Refuses what
    YAML reads as a boolean, such as `yes`."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"YAML reads this name as {value!r}; put it in quotes")
    return str(value)


Reference = Annotated[str, BeforeValidator(_name)]
Name = Annotated[Reference, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Flag = Annotated[bool, BeforeValidator(flag)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Rate = Annotated[Number, Field(gt=0)]
Whole = Annotated[int, BeforeValidator(whole), Field(ge=0, lt=2**63)]
Count = Annotated[int, BeforeValidator(whole), Field(gt=0, lt=2**63)]
