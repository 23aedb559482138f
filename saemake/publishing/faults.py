"""Errors of a push to the Hub, each as one clear line."""

import contextlib
import textwrap
from collections.abc import Iterator, Sized

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from saemake.base.errors import SaemakeError, first_line


@contextlib.contextmanager
def talking(repo_id: str, page: str, commits: Sized | None = None) -> Iterator[None]:
    """Turn exceptions of the Hub's client in the block into SaemakeError. `commits` are the commits
    that the block has made so far, so that the message says what is on the Hub; None if the block
    sends nothing."""
    try:
        yield
    except RuntimeError as error:
        # The client raises RuntimeError if a file cannot be uploaded; its cause says why.
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _answered(error.__cause__, repo_id, page, commits) from None
        raise _lost(error.__cause__ or error, repo_id, commits) from None
    except HfHubHTTPError as error:
        raise _answered(error, repo_id, page, commits) from None
    except OfflineModeIsEnabled:
        raise SaemakeError(
            f"{repo_id}: HF_HUB_OFFLINE is set, so the Hub was not asked; unset it and run the same"
            " command again"
        ) from None
    except PermissionError as error:
        if error.filename is not None:  # about a local file
            raise
        # hf_xet raises PermissionError if the token may not write.
        raise SaemakeError(no_rights(repo_id, _short(first_line(error)))) from None
    except (httpx2.HTTPError, ConnectionError, LocalEntryNotFoundError) as error:
        raise _lost(error, repo_id, commits) from None


def again(commits: Sized | None) -> str:
    """A clause on what a push has sent so far and how to continue. It counts the commits that the
    Hub confirmed: the last commit may have arrived although its answer was lost."""
    if commits is None:
        return "run the same command again"
    if not commits:
        return "the Hub has confirmed no commit; run the same command again"
    made = "1 commit" if len(commits) == 1 else f"{len(commits)} commits"
    return f"the Hub has confirmed {made}; the same command sends the rest"


def no_rights(repo_id: str, why: str) -> str:
    """The message for a token that may not write to a repository."""
    return (
        f"{repo_id} cannot be written: {why}; make a token that may write to it"
        f" ({constants.ENDPOINT}/settings/tokens), type `hf auth login`, then the same command"
    )


def _answered(
    error: HfHubHTTPError, repo_id: str, page: str, commits: Sized | None
) -> SaemakeError:
    status = error.response.status_code
    message = error.server_message or first_line(error)
    if status in (401, 403):
        return SaemakeError(no_rights(repo_id, f"the Hub says {status} ({_short(message)})"))
    if status == 409:
        return SaemakeError(
            f"{repo_id} exists on the Hub, but your token may not see it; push to another"
            " repository, or type `hf auth login` with a token that may write to it"
        )
    if status == 412:
        return SaemakeError(f"{repo_id} was changed during the push ({page}); {again(commits)}")
    return SaemakeError(f"{repo_id}: the Hub says {status} ({_short(message)}); {again(commits)}")


def _lost(error: BaseException, repo_id: str, commits: Sized | None) -> SaemakeError:
    return SaemakeError(
        f"{repo_id}: the connection to {constants.ENDPOINT} failed ({_short(first_line(error))});"
        f" {again(commits)}"
    )


def _short(message: str) -> str:
    return textwrap.shorten(message.strip().splitlines()[0] if message.strip() else "", 160)
