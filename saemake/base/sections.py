"""The base of every typed section of the configuration, and the number types they share."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Closed(BaseModel):
    """A section that refuses unknown keys and does not turn one type into another."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def laid_over(values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A section with a model's own values on top; of a section within it only those it says."""
    found = {**values, **own}
    for key, value in own.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), Mapping):
            found[key] = laid_over(values[key], value)
    return found


def _number(value: Any) -> Any:
    """YAML 1.1 reads `3e-4` as a string; people write numbers that way."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def whole(value: Any) -> Any:
    """Snakemake's `--config section='{key: 1}'` gives every value as a string."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _flag(value: Any) -> Any:
    """The same of true and false."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _name(value: Any) -> Any:
    """YAML reads `512` as a number, which is a name as good as another; `yes` is true to it."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"YAML reads this name as {value!r}; put it in quotes")
    return str(value)


Reference = Annotated[str, BeforeValidator(_name)]
Name = Annotated[Reference, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Flag = Annotated[bool, BeforeValidator(_flag)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(whole), Field(ge=0, lt=2**63)]
Count = Annotated[int, BeforeValidator(whole), Field(gt=0, lt=2**63)]
