"""What a crate names and does not pack: models, texts, data and published SAEs, at the commits at
which they were read, with their checksums."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.repocard import metadata_load

from saemake.config.config import Config
from saemake.paths.files import PUBLISHED_WEIGHTS, REPOSITORIES
from saemake.paths.names import DATASETS, PUBLISHED, RESULTS
from saemake.publishing.crate_graph import BYTES, MEDIA_TYPES, Graph, Ref, fragment, local
from saemake.records.made import Made

HUB = "https://huggingface.co"
CARD = "README.md"
LOCAL = "a local folder, which is not in the crate"


def read_with(graph: Graph, config: Config, path: str, record: Made) -> list[Ref]:
    """What a job that reads the file `path` also reads, and the crate does not pack: of a model's
    description its weights, of a manifest the token shards, of a dataset's file the data. Adds the
    entities. The file has to be at hand; `record` is its record."""
    match PurePosixPath(path).parts:
        case [top, _, "model.json"] if top == RESULTS:
            return [_model(graph, config, _read(path), record)]
        case [top, _, "tokens", _, "manifest.json"] if top == RESULTS:
            return list(_shards(graph, Path(path)))
        case [top, *_] if top == DATASETS:
            return [_dataset(graph, config, _read(path), record)]
    return []


def made_from(graph: Graph, config: Config, path: str, record: Made) -> list[Ref]:
    """What the job of the file `path` read besides the outputs of other jobs, and the crate does
    not pack. Adds the entities."""
    parts = PurePosixPath(path).parts
    match parts:
        case [top, model, "tokens", use, "manifest.json"] if top == RESULTS:
            return _texts(graph, config, config.text_of(model, use), _read(path), record)
        case [top, *_, file] if top == PUBLISHED and file in PUBLISHED_WEIGHTS:
            return list(_published(graph, _read(str(Path(path).with_name("source.json")))))
        case [top, second, *_] if top == PUBLISHED and second == REPOSITORIES:
            pinned = _read(path)
            return [_repository(graph, pinned["repository"], pinned["commit"])]
    return read_with(graph, config, path, record)


def _read(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text())
    return content


def _model(graph: Graph, config: Config, described: Mapping[str, Any], record: Made) -> Ref:
    name, hub, revision = described["model"], described["hub"], described["revision"]
    if hub is not None:
        sums = described["sha256"]
        card = _cached(hub, revision, CARD)
        return _on_hub(graph, f"the language model {hub}", hub, revision, sums, card)
    folder = config.path_of(config.models[name])
    parts = _parts(graph, "model", name, described["sha256"], folder)
    content = _content(record, "content")
    return _local(graph, "model", f"the language model '{name}'", name, folder, content, parts)


def _texts(
    graph: Graph, config: Config, text: str, manifest: Mapping[str, Any], record: Made
) -> list[Ref]:
    """The text of a manifest, or the parts of a mixture."""
    parts = config.parts_of(text)
    revisions = [part["text_revision"] for part in manifest.get("parts", [manifest])]
    contents = _text_contents(record)
    return [
        _text(graph, config, name, revision, content)
        for name, revision, content in zip(parts, revisions, contents, strict=True)
    ]


def _text(
    graph: Graph, config: Config, name: str, revision: str | None, content: str | None
) -> Ref:
    hub = config.texts[name].hub
    if hub is not None:
        assert revision is not None
        card = _cached(hub, revision, CARD, "dataset")
        return _on_hub(graph, f"the text {hub}", f"datasets/{hub}", revision, {}, card)
    folder = config.path_of(config.texts[name])
    return _local(graph, "text", f"the text '{name}'", name, folder, content, [])


def _shards(graph: Graph, manifest: Path) -> Iterator[Ref]:
    for shard in _read(str(manifest))["shards"]:
        path = manifest.parent / shard["file"]
        description = f"{shard['tokens']} tokens; not in the crate"
        yield _elsewhere(graph, "file", str(path), shard["sha256"], path, description)


def _dataset(graph: Graph, config: Config, described: Mapping[str, Any], record: Made) -> Ref:
    name, hub, revision = described["dataset"], described["hub"], described["revision"]
    if hub is not None:
        # Rows that were kept of a split are a file of the store, not of the Hub.
        kept_rows = config.datasets[name].rows is not None
        sums = {} if kept_rows else described["files"]
        card = _cached(hub, revision, CARD, "dataset")
        return _on_hub(graph, f"the data {hub}", f"datasets/{hub}", revision, sums, card)
    folder = config.path_of(config.datasets[name])
    parts = _parts(graph, "data", name, described["files"], folder)
    content = _content(record, "content")
    return _local(graph, "data", f"the data '{name}'", name, folder, content, parts)


def _parts(graph: Graph, kind: str, name: str, sums: Mapping[str, str], folder: Path) -> list[Ref]:
    """The files of a local folder, by their sums."""
    return [
        _elsewhere(graph, kind, f"{name}/{file}", sum_, folder / file)
        for file, sum_ in sums.items()
    ]


def _local(
    graph: Graph,
    kind: str,
    called: str,
    name: str,
    folder: Path,
    content: str | None,
    parts: list[Ref],
) -> Ref:
    """A local folder that something is in, with the digest of its content."""
    return graph.add(
        fragment(kind, name),
        "CreativeWork",
        name=called,
        description=LOCAL,
        identifier=content,
        license=_licence(graph, folder / CARD),
        hasPart=parts,
    )


def _published(graph: Graph, source: Mapping[str, Any]) -> Iterator[Ref]:
    """The files of a published SAE, at its commit."""
    repository, commit = source["repository"], source["commit"]
    _repository(graph, repository, commit)
    for file, sum_ in source["sha256"].items():
        yield _hub_file(graph, repository, commit, f"{source['path']}/{file}", sum_, None)


def _repository(graph: Graph, repository: str, commit: str) -> Ref:
    card = _cached(repository, commit, CARD)
    return _on_hub(graph, f"the published SAEs {repository}", repository, commit, {}, card)


def _on_hub(
    graph: Graph, name: str, place: str, revision: str, sums: Mapping[str, str], card: Path | None
) -> Ref:
    """A repository of the Hub at a commit, and those of its files whose checksums are known."""
    prefix = "datasets/"
    hub = place.removeprefix(prefix)
    kind = "dataset" if place.startswith(prefix) else "model"
    parts = [
        _hub_file(graph, place, revision, file, sum_, _cached(hub, revision, file, kind))
        for file, sum_ in sums.items()
    ]
    url = f"{HUB}/{place}/tree/{revision}"
    return graph.add(
        url,
        "Dataset",
        name=name,
        description=f"{place} on the Hugging Face Hub at commit {revision}; not in the crate",
        version=revision,
        license=_licence(graph, card),
        hasPart=parts,
    )


def _hub_file(
    graph: Graph, place: str, revision: str, file: str, sum_: str, cached: Path | None
) -> Ref:
    url = local(f"{HUB}/{place}/resolve/{revision}/{file}")
    return graph.add(
        url,
        "File",
        name=file,
        sha256=sum_,
        contentSize=_size(cached),
        encodingFormat=MEDIA_TYPES.get(PurePosixPath(file).suffix, BYTES),
    )


def _elsewhere(
    graph: Graph, kind: str, name: str, sum_: str, path: Path, description: str = LOCAL
) -> Ref:
    """A file that the crate has only the checksum of."""
    return graph.add(
        fragment(kind, name),
        "CreativeWork",
        name=name,
        description=description,
        sha256=sum_,
        contentSize=_size(path),
    )


def left_out(graph: Graph, path: str, sum_: str) -> Ref:
    """A file that the crate names and does not have, with the checksum that is recorded."""
    at_hand = Path(path).is_file()
    description = "not in the crate" if at_hand else "gone before the crate was made"
    return _elsewhere(graph, "file", path, sum_, Path(path), description)


def _size(path: Path | None) -> str | None:
    """The bytes of a file; None if it is not at hand."""
    return None if path is None or not path.is_file() else str(path.stat().st_size)


def _cached(hub: str, revision: str, file: str, kind: str = "model") -> Path | None:
    """A file of the Hub in this machine's cache. Uses no network."""
    found = try_to_load_from_cache(hub, file, revision=revision, repo_type=kind)
    return Path(found) if isinstance(found, str) else None


def _content(record: Made, key: str) -> str | None:
    """The digest of a local folder's files, as the recipe has it."""
    recipe = next(iter(record.recipes.values())).recipe
    digest: str | None = recipe.get(key)
    return digest


def _text_contents(record: Made) -> list[str | None]:
    """The same of a text, or of each part of a mixture."""
    recipe = next(iter(record.recipes.values())).recipe
    return [part.get("text_content") for part in recipe.get("mix", [recipe])]


def _licence(graph: Graph, card: Path | None) -> Ref:
    """The licence that a model card or data card states; an entity that says that none is stated,
    if there is no card at hand, or none in it that can be read."""
    if card is None or not card.is_file():
        return graph.licence(None, "its card")
    try:
        front = metadata_load(card) or {}
    except (ValueError, yaml.YAMLError):
        front = {}
    said = front.get("license")
    if said == "other":  # then the card names it
        said = front.get("license_name", said)
    return graph.licence(said if isinstance(said, str) else None, "its card")
