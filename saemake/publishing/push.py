"""A push sends the files of its plan in commits of bounded size. If it is interrupted, its commits
stay on the Hub, and the next push sends the rest."""

import sys
from collections.abc import Iterator, Sequence, Sized
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.utils import disable_progress_bars

from saemake.base.errors import SaemakeError, first_line
from saemake.paths.files import CARD, REBUILDING
from saemake.publishing.faults import again, talking
from saemake.publishing.push_plan import File, PushPlan, look, plan, size_of

COMMIT_FILES = 100
COMMIT_BYTES = 2**30


def push(planned: PushPlan) -> dict[str, Any]:
    """Send new files, and differing files if the config says to overwrite. Returns the receipt.

    Raises SaemakeError if the plan is refused, before anything is sent, and if the Hub refuses or
    the connection is lost. Commits made before that stay on the Hub.
    """
    if planned.refusal:
        raise SaemakeError(f"{planned.refusal} (nothing was sent)")
    if planned.to_send:
        commits = _send(planned)
        repository = look(planned.repository.id, commits)
        after = plan(repository, planned.model, list(planned.states), planned.publishing)
    else:
        print(
            f"saemake: {planned.repository.id}: nothing to send, the Hub has every file", flush=True
        )
        commits, after = [], planned
    _check_arrived(after, commits)
    return {
        "repository": after.repository.id,
        "page": after.repository.page,
        "model": after.model,
        "revision": after.repository.head,
        "commits": commits,
        "files": {
            file.path: {"bytes": file.size, "sha256": file.sha256}
            for file in sorted(after.states, key=lambda file: file.path)
        },
    }


def _send(planned: PushPlan) -> list[dict[str, Any]]:
    """Make the commits of this push. Returns their ids and files."""
    repository, sent = planned.repository, 0
    made: list[dict[str, Any]] = []
    api, head = HfApi(library_name="saemake"), repository.head
    if not sys.stderr.isatty():
        disable_progress_bars()
    with talking(repository.id, repository.page, made):
        # The client checks the card too, but only in the last commit, which has the card.
        for card in (file for file in planned.to_send if file.path == CARD):
            _check_card(card)
        if head is None:
            api.create_repo(repository.id, private=planned.publishing.private)
        for files in batches(planned.to_send):
            commit = api.create_commit(
                repository.id,
                [CommitOperationAdd(file.path, file.source) for file in files],
                commit_message=f"{planned.model}: {len(files)} files, by saemake",
                parent_commit=head,
            )
            head = commit.oid
            made.append({"commit": head, "files": [file.path for file in files]})
            sent += len(files)
            print(
                f"saemake: {repository.id}: {sent} of {len(planned.to_send)} files are on the Hub"
                f" (this commit: {size_of(files)})",
                flush=True,
            )
    return made


def _check_card(card: File) -> None:
    try:
        ModelCard.load(card.source).validate()
    except ValueError as error:
        raise SaemakeError(
            f"{card.source}: the Hub does not take its metadata ({first_line(error)}); give"
            " publishing.license an identifier that the Hub knows, or null"
        ) from None


def batches(
    files: Sequence[File], most_files: int = COMMIT_FILES, most_bytes: int = COMMIT_BYTES
) -> Iterator[list[File]]:
    """The files of each commit, in the order of their paths. The config comes first, since the next
    push recognises the repository by it. The card comes last, since it describes all other
    files."""
    special = {file.path: file for file in files if file.path in (CARD, REBUILDING)}
    if REBUILDING in special:
        yield [special[REBUILDING]]
    batch: list[File] = []
    for file in sorted(set(files) - set(special.values()), key=lambda file: file.path):
        batch_bytes = sum(batched.size for batched in batch)
        if batch and (len(batch) == most_files or batch_bytes + file.size > most_bytes):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch
    if CARD in special:
        yield [special[CARD]]


def _check_arrived(after: PushPlan, commits: Sized) -> None:
    """Raise SaemakeError if a file on the Hub differs from the local file."""
    if after.to_send:
        path = after.to_send[0].path
        raise SaemakeError(
            f"{after.repository.id}: {path} on the Hub differs from the one that was sent"
            f" ({after.repository.page}); {again(commits)}"
        )
