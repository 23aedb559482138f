"""The base of every typed section of the configuration, and the number type they share."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Closed(BaseModel):
    """A section that refuses unknown keys and does not turn one type into another."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _number(value: Any) -> Any:
    """YAML 1.1 reads `3e-4` as a string; people write numbers that way."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Number = Annotated[float, BeforeValidator(_number)]
