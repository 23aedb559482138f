"""What goes wrong between here and the Hub in a push, as one clear line each."""

import contextlib
import textwrap
from collections.abc import Iterator

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from saemake.errors import SaemakeError, first_line

AGAIN = "the same command goes on with the rest"


@contextlib.contextmanager
def talking(repo_id: str, page: str) -> Iterator[None]:
    """Turn what the Hub's client raises in the block into SaemakeError."""
    try:
        yield
    except RuntimeError as error:
        # So the client says that a file could not be uploaded; why is in the cause.
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _answered(error.__cause__, repo_id, page) from None
        raise _lost(error.__cause__ or error, repo_id) from None
    except HfHubHTTPError as error:
        raise _answered(error, repo_id, page) from None
    except OfflineModeIsEnabled:
        raise SaemakeError(
            f"{repo_id}: the environment says to be offline; unset HF_HUB_OFFLINE and {AGAIN}"
        ) from None
    except PermissionError as error:
        if error.filename is not None:  # of a file here
            raise
        # So hf_xet says that its token may not write.
        raise SaemakeError(no_rights(repo_id, _short(first_line(error)))) from None
    except (httpx2.HTTPError, ConnectionError, LocalEntryNotFoundError) as error:
        raise _lost(error, repo_id) from None


def no_rights(repo_id: str, why: str) -> str:
    """The line for who may not write there."""
    return (
        f"{repo_id} cannot be written: {why}; make a token that may write to it"
        f" ({constants.ENDPOINT}/settings/tokens), type `hf auth login`, then the same command"
    )


def _answered(error: HfHubHTTPError, repo_id: str, page: str) -> SaemakeError:
    status = error.response.status_code
    said = error.server_message or first_line(error)
    if status in (401, 403):
        return SaemakeError(no_rights(repo_id, f"the Hub says {status} ({_short(said)})"))
    if status == 409:
        return SaemakeError(
            f"{repo_id} is there already, and this token does not see it; push to another"
            " repository, or type `hf auth login` as one who may write to it"
        )
    if status == 412:
        return SaemakeError(f"{repo_id} was changed during the push ({page}); {AGAIN}")
    return SaemakeError(f"{repo_id}: the Hub says {status} ({_short(said)}); {AGAIN}")


def _lost(error: BaseException, repo_id: str) -> SaemakeError:
    return SaemakeError(
        f"{repo_id}: the connection to {constants.ENDPOINT} failed ({_short(first_line(error))});"
        f" what was committed is there, and {AGAIN}"
    )


def _short(said: str) -> str:
    return textwrap.shorten(said.strip().splitlines()[0] if said.strip() else "", 160)
