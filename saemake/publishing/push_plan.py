"""What a push would do: the suite's local files compared with those of the Hub repository."""

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
from saemake.recipes.training import sae_recipe
from saemake.training.files import checked_sum

State = Literal["new", "unchanged", "different"]
# Files that the Hub puts into each new repository.
OF_THE_HUB = {".gitattributes"}
OVERWRITE = "--config 'publishing={overwrite: true}'"


@dataclass(frozen=True)
class File:
    """A file to publish: its path in the repository, its local path `source`, its size in bytes."""

    path: str
    source: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Repository:
    """A model repository on the Hub: the commit of its main branch (None if this token sees no
    such repository) and its files by path."""

    id: str
    page: str
    head: str | None
    files: dict[str, RepoFile]


@dataclass(frozen=True)
class PushPlan:
    """The state of each file of the suite on the Hub. `refusal` says why a push would send nothing;
    None if it would be accepted."""

    model: str
    repository: Repository
    states: dict[File, State]
    publishing: Publishing
    refusal: str | None

    def of(self, state: State) -> list[File]:
        """The files in this state."""
        return [file for file, other in self.states.items() if other == state]

    @property
    def to_send(self) -> list[File]:
        """The files that are not on the Hub as they are here."""
        return [file for file, state in self.states.items() if state != "unchanged"]


def suite(config: Config, model: str, beside: Path) -> list[File]:
    """The files of a model's suite, and those that the push job wrote into the folder `beside`.
    Raises SaemakeError if an SAE does not match its provenance."""
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
    """The repository as the Hub lists it; fetches no file. `commits` are those that a push has made
    so far, None before a push. Raises SaemakeError if the Hub cannot be reached."""
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
    """Compare the files with the repository, and decide whether a push would be refused."""
    states = {file: _state(file, repository.files.get(file.path)) for file in files}
    refusal = (
        _no_token(repository)
        or _not_ours(repository, model, states)
        or _overwrites(repository, states, publishing)
    )
    return PushPlan(model, repository, states, publishing, refusal)


def _state(file: File, on_hub: RepoFile | None) -> State:
    if on_hub is None:
        return "new"
    if on_hub.size != file.size:
        return "different"
    # The Hub lists the sha256 of LFS files, and git's hash of other files.
    same = (
        on_hub.lfs.sha256 == file.sha256
        if on_hub.lfs
        else on_hub.blob_id == git_hash(file.source.read_bytes())
    )
    return "unchanged" if same else "different"


def _no_token(repository: Repository) -> str | None:
    return None if get_token() else no_rights(repository.id, "you are not logged in")


def _not_ours(repository: Repository, model: str, states: dict[File, State]) -> str | None:
    """A refusal if the repository is not this suite's: saemake's repositories have a config of
    their model."""
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
    published_model = _published_model(repository)
    if published_model == model:
        return None
    holds = (
        f"the suite of '{published_model}', not of '{model}'"
        if published_model
        else f"a {REBUILDING} that saemake did not write"
    )
    return f"{repository.id} has {holds} ({repository.page}); {way_out}"


def _published_model(repository: Repository) -> str | None:
    """The model whose suite a repository has, from its config. None if the config is not one that
    saemake wrote."""
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


def text(planned: PushPlan) -> str:
    """plan.txt: each file with its state and bytes, then what a push would do."""
    repository = planned.repository
    where = "which exists" if repository.head else f"made by the push, {_visibility(planned)}"
    lines = [f"{planned.model} to {repository.id}, {where} ({repository.page})", ""]
    ordered = sorted(planned.states.items(), key=lambda item: item[0].path)
    lines += [f"{state:<9} {file.size:>15,}  {file.path}" for file, state in ordered]
    ours = {file.path for file in planned.states} | OF_THE_HUB
    lines += [f"{'kept':<9} {file.size:>15,}  {path}" for path, file in _kept(repository, ours)]
    lines += ["", *(_sum(planned, state) for state in ("new", "unchanged", "different")), ""]
    if planned.refusal:
        lines.append(f"A push would be refused: {planned.refusal}")
    else:
        sends = planned.to_send
        lines.append(f"A push would send {len(sends)} files, {size_of(sends)}.")
    return "\n".join(lines) + "\n"


def _visibility(planned: PushPlan) -> str:
    return "private" if planned.publishing.private else "public"


def _kept(repository: Repository, ours: set[str]) -> list[tuple[str, RepoFile]]:
    """The files on the Hub that are not of this suite. A push leaves them alone."""
    return sorted((path, file) for path, file in repository.files.items() if path not in ours)


def _sum(planned: PushPlan, state: State) -> str:
    files = planned.of(state)
    return f"{state:<9} {len(files):>5} files, {size_of(files)}"


def size_of(files: Sequence[File]) -> str:
    """The total size of the files, as text in MiB."""
    return f"{sum(file.size for file in files) / 2**20:,.2f} MiB"
