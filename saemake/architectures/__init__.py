"""The registry of architectures. Every folder of this package is imported, and registers its
architecture with `@register`. A new architecture is one folder here, with its description in
`__init__.py` and its mathematics in `trainer.py`, and one entry in the config.

Each architecture that transcodes has a variant with a skip connection, `top_k_skip` for `top_k`,
which needs no folder.
"""

import functools

from saemake.architectures.description import Architecture, Settings
from saemake.base.registry import Registry

__all__ = ["Architecture", "Settings", "base_name", "get", "names", "register", "variants"]

SKIP = "_skip"

registry = Registry(__name__, "architecture", Architecture)
register, names = registry.register, registry.names


def base_name(name: str) -> str:
    """The name without the variant: `top_k` for `top_k_skip`, and for itself."""
    return name.removesuffix(SKIP) if name not in names() else name


def variants() -> list[str]:
    """The names of all architectures, and of their variants with a skip connection."""
    return [*names(), *(name + SKIP for name in names() if registry.get(name).transcodes)]


def get(name: str) -> type[Architecture]:
    """The architecture of that name, or the variant of one with a skip connection. Raises
    SaemakeError, naming the nearest, if there is none."""
    base = base_name(name)
    if base != name and base in names() and registry.get(base).transcodes:
        return _with_skip(base)
    return registry.get(name)


@functools.cache
def _with_skip(base: str) -> type[Architecture]:
    kind = registry.get(base)
    content = {"name": kind.name + SKIP, "skip": True, "__module__": kind.__module__}
    return type(f"{kind.__name__}WithSkip", (kind,), content)
