"""A push: what the plan says, in commits of bounded size, so that one that is interrupted has what
it committed, and the next sends the rest."""

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
    """Send what is new, and what differs where the config says to overwrite; the receipt.

    Raises SaemakeError where the plan is refused, before anything is sent, and where the Hub
    refuses or the connection is lost; commits made before that stay on the Hub.
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
    """The commits of this push: their ids and files."""
    repository, sent = planned.repository, 0
    made: list[dict[str, Any]] = []
    api, head = HfApi(library_name="saemake"), repository.head
    if not sys.stderr.isatty():
        disable_progress_bars()
    with talking(repository.id, repository.page, made):
        # The client asks the Hub as well, with the commit that has the card: the last.
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
    """The files of each commit, in the order of their paths: first the config, by which the next
    push knows the repository; last the card, which speaks of all the others."""
    alone = {file.path: file for file in files if file.path in (CARD, REBUILDING)}
    if REBUILDING in alone:
        yield [alone[REBUILDING]]
    batch: list[File] = []
    for file in sorted(set(files) - set(alone.values()), key=lambda file: file.path):
        full = len(batch) == most_files or sum(one.size for one in batch) + file.size > most_bytes
        if batch and full:
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch
    if CARD in alone:
        yield [alone[CARD]]


def _check_arrived(after: PushPlan, commits: Sized) -> None:
    """Raise SaemakeError where a file on the Hub differs from the one here."""
    if after.to_send:
        path = after.to_send[0].path
        raise SaemakeError(
            f"{after.repository.id}: {path} on the Hub differs from the one that was sent"
            f" ({after.repository.page}); {again(commits)}"
        )
