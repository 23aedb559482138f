"""A registry of variants, such as architectures. Each variant is a folder of one package, and the
registry finds it by itself."""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Generic, TypeVar

from saemake.base.errors import SaemakeError, nearest

Described = TypeVar("Described")


class Registry(Generic[Described]):
    """The subclasses of `base` that the folders of `package` register. Messages call a variant by
    `kind`, such as 'architecture'."""

    def __init__(self, package: str, kind: str, base: type[Described]) -> None:
        self.package, self.kind = package, kind
        # The attributes that `base` annotates without giving them a value.
        self.required = [key for key in base.__annotations__ if not hasattr(base, key)]
        self.known: dict[str, type[Described]] = {}
        self._loaded = False

    def register(self, described: type[Described]) -> type[Described]:
        """Class decorator. Raises ValueError if the name is taken, or if the class lacks a required
        attribute or method."""
        missing = [key for key in self.required if not hasattr(described, key)]
        missing += sorted(getattr(described, "__abstractmethods__", ()))
        place = described.__module__
        if missing:
            raise ValueError(f"{place}: the {self.kind} lacks {', '.join(missing)}")
        name = described.name  # type: ignore[attr-defined]
        if name in self.known:
            other = self.known[name].__module__
            raise ValueError(f"{self.kind} '{name}' of {place} is already registered by {other}")
        self.known[name] = described
        return described

    def names(self) -> list[str]:
        """The names of all variants, sorted."""
        return sorted(self._all())

    def get(self, name: str) -> type[Described]:
        """The variant of that name. Raises SaemakeError, naming the nearest, if there is none."""
        known = self._all()
        if name not in known:
            raise SaemakeError(f"no {self.kind} '{name}'; {nearest(name, known)}")
        return known[name]

    def _all(self) -> dict[str, type[Described]]:
        if not self._loaded:
            paths: Sequence[str] = importlib.import_module(self.package).__path__
            for module in pkgutil.iter_modules(paths, prefix=f"{self.package}."):
                if module.ispkg:
                    importlib.import_module(module.name)
            self._loaded = True
        return self.known
