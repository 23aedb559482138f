"""The registry of architectures. Every folder of this package is imported, and registers its
architecture with `@register`. A new architecture is one folder here, with its description in
`__init__.py` and its mathematics in `trainer.py`, and one entry in the config.
"""

import importlib
import pkgutil

from saemake.architectures.description import Architecture, Settings
from saemake.base.errors import SaemakeError, nearest

__all__ = ["Architecture", "Settings", "get", "names", "register"]

# Attributes that Architecture declares without a value.
REQUIRED = [key for key in Architecture.__annotations__ if not hasattr(Architecture, key)]
_registry: dict[str, type[Architecture]] = {}
_loaded = False


def register(architecture: type[Architecture]) -> type[Architecture]:
    """Class decorator. Raises ValueError if another architecture has the same name, or if a
    required attribute is missing."""
    missing = [key for key in REQUIRED if not hasattr(architecture, key)]
    if missing:
        raise ValueError(f"{architecture.__module__}: the architecture lacks {', '.join(missing)}")
    if architecture.name in _registry:
        registered = _registry[architecture.name]
        raise ValueError(
            f"architecture '{architecture.name}' of {architecture.__module__} is already"
            f" registered by {registered.__module__}"
        )
    _registry[architecture.name] = architecture
    return architecture


def _load_all() -> None:
    global _loaded
    if not _loaded:
        for module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
            if module.ispkg:
                importlib.import_module(module.name)
        _loaded = True


def names() -> list[str]:
    """The names of all architectures, sorted."""
    _load_all()
    return sorted(_registry)


def get(name: str) -> type[Architecture]:
    """The architecture with that name. Raises SaemakeError if there is none."""
    _load_all()
    if name not in _registry:
        raise SaemakeError(f"no architecture '{name}'; {nearest(name, _registry)}")
    return _registry[name]
