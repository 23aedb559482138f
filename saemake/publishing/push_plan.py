"""What a push would do: the suite's files here beside those of the repository on the Hub."""

import tempfile
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from huggingface_hub import HfApi, RepoFile, get_token
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils.sha import git_hash

from saemake.base.store import sha256
from saemake.config.config import Config
from saemake.config.sections import Publishing
from saemake.hub import patiently
from saemake.paths.files import CARD, REBUILDING, suite_files, suite_saes
from saemake.paths.names import RESULTS
from saemake.publishing.faults import no_rights, talking
from saemake.recipes import sae_recipe
from saemake.training.files import checked_sum

State = Literal["new", "unchanged", "different"]
# What the Hub puts into a repository that it makes.
OF_THE_HUB = {".gitattributes"}
OVERWRITE = "--config 'publishing={overwrite: true}'"


@dataclass(frozen=True)
class File:
    """A file to be on the Hub: its path there, where it is here, its bytes."""

    path: str
    source: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Repository:
    """A model repository as it is: the commit that its main branch is at (None: there is none that
    this token sees) and its files by their paths."""

    id: str
    page: str
    head: str | None
    files: dict[str, RepoFile]


@dataclass(frozen=True)
class PushPlan:
    """Each file of the suite and how the Hub has it; `refusal` is why a push would send nothing."""

    model: str
    repository: Repository
    states: dict[File, State]
    publishing: Publishing
    refusal: str | None

    def of(self, state: State) -> list[File]:
        return [file for file, found in self.states.items() if found == state]

    @property
    def to_send(self) -> list[File]:
        return [file for file, found in self.states.items() if found != "unchanged"]


def suite(config: Config, model: str, beside: Path) -> list[File]:
    """The files of a model's suite, and those that were written for the push into the folder
    `beside`. SaemakeError where an SAE is not what its provenance says."""
    below = f"{RESULTS}/{model}/"
    sources = {path.removeprefix(below): Path(path) for path in suite_files(config, model)}
    sources |= {name: beside / name for name in (REBUILDING, CARD)}
    checked = {
        Path(sae.folder, "ae.pt"): checked_sum(Path(sae.folder), sae_recipe(config, sae).hash)
        for sae in suite_saes(config, model)
    }
    return [
        File(path, source, source.stat().st_size, checked.get(source) or sha256(source))
        for path, source in sources.items()
    ]


def look(repo_id: str, commits: Sized | None = None) -> Repository:
    """The repository as the Hub lists it; no file is fetched. `commits` are those that a push has
    made, None before one. Raises SaemakeError where the Hub cannot be asked."""
    api = HfApi(library_name="saemake")
    page = f"{api.endpoint}/{repo_id}"
    with talking(repo_id, page, commits):
        try:
            head = patiently(lambda: api.model_info(repo_id)).sha
        except RepositoryNotFoundError:
            return Repository(repo_id, page, None, {})
        listed = patiently(lambda: list(api.list_repo_tree(repo_id, recursive=True, revision=head)))
        files = {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}
    return Repository(repo_id, page, head, files)


def plan(
    repository: Repository, model: str, files: Sequence[File], publishing: Publishing
) -> PushPlan:
    """How the Hub has each of the files, and why a push would be refused, if it would."""
    states = {file: _state(file, repository.files.get(file.path)) for file in files}
    refusal = (
        _no_token(repository)
        or _not_ours(repository, model, states)
        or _overwrites(repository, states, publishing)
    )
    return PushPlan(model, repository, states, publishing, refusal)


def _state(file: File, there: RepoFile | None) -> State:
    if there is None:
        return "new"
    if there.size != file.size:
        return "different"
    # Of an LFS file the Hub tells the sha256, of another git's hash.
    same = (
        there.lfs.sha256 == file.sha256
        if there.lfs
        else there.blob_id == git_hash(file.source.read_bytes())
    )
    return "unchanged" if same else "different"


def _no_token(repository: Repository) -> str | None:
    return None if get_token() else no_rights(repository.id, "you are not logged in")


def _not_ours(repository: Repository, model: str, states: dict[File, State]) -> str | None:
    """Whether the files there are somebody else's: what saemake made has a config of this model."""
    others = sorted(set(repository.files) - OF_THE_HUB)
    if not others:
        return None
    way_out = "push to another repository"
    if REBUILDING not in repository.files:
        collides = [file.path for file in states if file.path in repository.files]
        return (
            f"{repository.id} was not made by saemake: it has {(collides or others)[0]} and no"
            f" {REBUILDING} ({repository.page}); {way_out}"
        )
    if any(file.path == REBUILDING and state == "unchanged" for file, state in states.items()):
        return None
    found = _published_model(repository)
    if found == model:
        return None
    holds = (
        f"the suite of '{found}', not of '{model}'"
        if found
        else f"a {REBUILDING} that saemake did not write"
    )
    return f"{repository.id} has {holds} ({repository.page}); {way_out}"


def _published_model(repository: Repository) -> str | None:
    """Whose suite a repository has, by its config; None where that is none."""
    api = HfApi(library_name="saemake")
    with talking(repository.id, repository.page), tempfile.TemporaryDirectory() as folder:
        path = api.hf_hub_download(
            repository.id, REBUILDING, revision=repository.head, local_dir=folder
        )
        try:
            build = yaml.safe_load(Path(path).read_text())["build"]
        except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
            return None
    return build[0] if isinstance(build, list) and len(build) == 1 else None


def _overwrites(
    repository: Repository, states: dict[File, State], publishing: Publishing
) -> str | None:
    different = [file for file, state in states.items() if state == "different"]
    if not different or publishing.overwrite:
        return None
    first, count = different[0], len(different)
    others = f" ({count} files differ)" if count > 1 else ""
    return (
        f"{repository.id}: {first.path} there differs from {first.source} here{others}; to replace"
        f" what differs, add {OVERWRITE}; or push to another repository"
    )


def text(found: PushPlan) -> str:
    """plan.txt: each file with its state and bytes, then what a push would do."""
    repository = found.repository
    where = "which exists" if repository.head else f"made by the push, {_visibility(found)}"
    lines = [f"{found.model} to {repository.id}, {where} ({repository.page})", ""]
    ordered = sorted(found.states.items(), key=lambda item: item[0].path)
    lines += [f"{state:<9} {file.size:>15,}  {file.path}" for file, state in ordered]
    ours = {file.path for file in found.states} | OF_THE_HUB
    lines += [f"{'kept':<9} {there.size:>15,}  {path}" for path, there in _kept(repository, ours)]
    lines += ["", *(_sum(found, state) for state in ("new", "unchanged", "different")), ""]
    if found.refusal:
        lines.append(f"A push would be refused: {found.refusal}")
    else:
        sends = found.to_send
        lines.append(f"A push would send {len(sends)} files, {size_of(sends)}.")
    return "\n".join(lines) + "\n"


def _visibility(found: PushPlan) -> str:
    return "private" if found.publishing.private else "public"


def _kept(repository: Repository, ours: set[str]) -> list[tuple[str, RepoFile]]:
    """What is there and not of this suite, which a push leaves alone."""
    return sorted((path, there) for path, there in repository.files.items() if path not in ours)


def _sum(found: PushPlan, state: State) -> str:
    files = found.of(state)
    return f"{state:<9} {len(files):>5} files, {size_of(files)}"


def size_of(files: Sequence[File]) -> str:
    """The files' size in words."""
    return f"{sum(file.size for file in files) / 2**20:,.2f} MiB"
