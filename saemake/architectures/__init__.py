"""The registry of architectures. Each folder of this package that registers one is found by itself:
adding an architecture is one folder here, with what it is called and its settings in `__init__.py`
and its maths in `trainer.py`, and one entry in the config.
"""

import importlib
import pkgutil

from saemake.architectures.description import Architecture, Settings
from saemake.base.errors import SaemakeError, nearest

__all__ = ["Architecture", "Settings", "get", "names", "register"]

# What has a type in Architecture and no value.
REQUIRED = [key for key in Architecture.__annotations__ if not hasattr(Architecture, key)]
_registry: dict[str, type[Architecture]] = {}
_loaded = False


def register(architecture: type[Architecture]) -> type[Architecture]:
    """Class decorator. Raises ValueError where two architectures have one name, or something that
    each must say is missing."""
    missing = [key for key in REQUIRED if not hasattr(architecture, key)]
    if missing:
        raise ValueError(f"{architecture.__module__}: the architecture lacks {', '.join(missing)}")
    if architecture.name in _registry:
        other = _registry[architecture.name]
        raise ValueError(
            f"architecture '{architecture.name}' of {architecture.__module__} is already"
            f" registered by {other.__module__}"
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
    """The architecture of that name; SaemakeError where there is none."""
    _load_all()
    if name not in _registry:
        raise SaemakeError(f"no architecture '{name}'; {nearest(name, _registry)}")
    return _registry[name]
