"""The JSON-LD of an RO-Crate: entities by their @id, each said once."""

import json
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from saemake.base.digest import digest

METADATA = "ro-crate-metadata.json"
ROOT = "./"
# RO-Crate 1.1 is what the profiles of workflow runs extend. Its context has no sha256.
CONTEXT = [
    "https://w3id.org/ro/crate/1.1/context",
    {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"},
]
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    WORKFLOW_CRATE: ("Workflow RO-Crate", "1.0"),
}
BYTES = "application/octet-stream"
MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".py": "text/x-python",
    ".smk": "text/plain",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
    "": "text/plain",
}
NOT_STATED = "#license-not-stated"
# Characters of an @id that need no escape.
SAFE = "/:@,=+"

Entity = dict[str, Any]
Ref = dict[str, str]


class Graph:
    """Entities by their @id."""

    def __init__(self) -> None:
        self.entities: dict[str, Entity] = {}

    def add(self, id_: str, type_: str | list[str], **properties: Any) -> Ref:
        """Add an entity, or replace the one of this @id. Properties that are None or empty are left
        out. Returns a reference to it."""
        said = {key: value for key, value in properties.items() if value not in (None, [], "")}
        self.entities[id_] = {"@id": id_, "@type": type_, **said}
        return {"@id": id_}

    def file(self, path: str, sha256: str, size: int, **properties: Any) -> Ref:
        """Add a file that is in the crate."""
        suffix = PurePosixPath(path).suffix
        return self.add(
            local(path),
            properties.pop("type_", "File"),
            name=path,
            sha256=sha256,
            contentSize=str(size),
            encodingFormat=MEDIA_TYPES.get(suffix, BYTES),
            **properties,
        )

    def value(self, name: str, value: Any) -> Ref:
        """Add a named value, such as a setting. The same name and value are one entity."""
        said = value if isinstance(value, bool | int | float | str) else json.dumps(value)
        id_ = fragment("value", f"{name}/{digest([name, value])[:16]}")
        return self.add(id_, "PropertyValue", name=name, value=said)

    def software(self, name: str, version: str) -> Ref:
        """Add a program or package of a version."""
        kind = "generic" if name in ("python", "saemake") else "pypi"
        id_ = f"pkg:{kind}/{quote(name, '')}@{quote(version, '+')}"
        return self.add(id_, "SoftwareApplication", name=name, softwareVersion=version)

    def licence(self, said: str | None, by: str) -> Ref:
        """Add a licence in the words in which it is stated (such as `apache-2.0`), and who states
        it; where nobody does, an entity that says this."""
        if said is None:
            return self.add(
                NOT_STATED,
                "CreativeWork",
                name="not stated",
                description="No licence is stated. That is no permission to reuse.",
            )
        return self.add(
            fragment("license", f"{said}/{by}"),
            "CreativeWork",
            name=said,
            description=f"as stated by {by}",
        )

    def document(self) -> bytes:
        """ro-crate-metadata.json: the description of the crate first, then by @id."""
        first = [METADATA, ROOT]
        ids = [*first, *sorted(set(self.entities) - set(first))]
        graph = [_sorted(self.entities[id_]) for id_ in ids]
        content = {"@context": CONTEXT, "@graph": graph}
        return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _sorted(entity: Entity) -> Entity:
    """An entity with its properties in a fixed order, and each reference once, in order of their
    @id. A list of one is written without the list, as RO-Crate asks."""
    return {key: _in_order(entity[key]) for key in sorted(entity)}


def _in_order(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        return value
    unique = {each["@id"]: each for each in value}
    first, *others = (unique[id_] for id_ in sorted(unique))
    return [first, *others] if others else first


def local(path: str) -> str:
    """The @id of a file in the crate."""
    return quote(path, SAFE)


def fragment(kind: str, name: str) -> str:
    """The @id of something that is no file of the crate, such as a job."""
    return f"#{kind}/{quote(name, SAFE)}"


def leaves(recipe: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """The settings in a recipe, each with its dotted name. Settings that are null are left out;
    lists are one setting."""
    if isinstance(recipe, dict):
        for key in sorted(recipe):
            yield from leaves(recipe[key], f"{at}.{key}" if at else key)
    elif recipe is not None:
        yield at, recipe


def named(paths: Iterable[str]) -> str:
    """The first of some paths, and how many more there are."""
    first, *others = paths
    return f"{first}{f' and {len(others)} more' if others else ''}"
