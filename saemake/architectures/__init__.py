"""The registry of architectures. Every folder of this package is imported, and registers its
architecture with `@register`. A new architecture is one folder here, with its description in
`__init__.py` and its mathematics in `trainer.py`, and one entry in the config.
"""

from saemake.architectures.description import Architecture, Settings
from saemake.base.registry import Registry

__all__ = ["Architecture", "Settings", "get", "names", "register"]

registry = Registry(__name__, "architecture", Architecture)
register, names, get = registry.register, registry.names, registry.get
