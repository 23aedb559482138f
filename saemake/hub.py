"""Access to the Hub. Requests are repeated while the Hub is busy or connections break, revisions
are pinned to commits, and each failure becomes one line: what could not be reached, and the command
to type."""

import contextlib
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import httpx2  # huggingface_hub's HTTP client, whose errors it raises
import tenacity
from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers
from huggingface_hub.utils._http import default_client_factory

from saemake.base.digest import digest
from saemake.base.errors import SaemakeError, first_line
from saemake.base.store import Store

if TYPE_CHECKING:  # jobs on a GPU import this module and may run without `datasets`
    from datasets import IterableDataset

REFUSED = (GatedRepoError, RepositoryNotFoundError)
UNREACHABLE = (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.HTTPError, ConnectionError)
FAILURES = (*REFUSED, RevisionNotFoundError, *UNREACHABLE)
BROKEN = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
NO_NETWORK = (httpx2.ConnectError, httpx2.ConnectTimeout)
# Number of tries per request. Unless the Hub names a wait, the waits between are 1, 2, 4, 8, 16 s.
TRIES = 6
# Longer waits that the Hub asks for are failures. Its limits are on requests in five minutes.
LONGEST_WAIT_S = 600
# A firewall may drop packets without an answer. By itself the client waits as long as the kernel
# then, 127 s.
CONNECT_S = 10.0
PINNED = "commit.json"
Answer = TypeVar("Answer")


def _client() -> httpx2.Client:
    """The Hub's own client, which waits at most CONNECT_S for a connection."""
    client = default_client_factory()
    client.event_hooks = {"request": [*client.event_hooks["request"], _limit_connecting]}
    return client


def _limit_connecting(request: httpx2.Request) -> None:
    """A hook of each request, since some name no limit, which overrides the client's."""
    limits = request.extensions.get("timeout", {})
    connect_s = min(limits.get("connect") or CONNECT_S, CONNECT_S)
    request.extensions["timeout"] = {**limits, "connect": connect_s}


set_client_factory(_client)


@contextlib.contextmanager
def reached(
    what: str,
    page: str,
    revision: str,
    otherwise: str,
    also_refused: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turn the Hub's exceptions in the block into SaemakeError.

    `what` names the repository ("model 'google/gemma-2-2b'"), `page` is its page on the Hub, and
    `otherwise` says what to type if the Hub cannot be reached from this machine. `also_refused` are
    exceptions of other clients for a repository that is missing, private or gated.
    """
    page = f"{constants.ENDPOINT}/{page}"
    try:
        yield
    except (*REFUSED, *also_refused) as error:
        raise SaemakeError(f"{what} {_refusal(error, page)}") from None
    except RevisionNotFoundError:
        raise SaemakeError(
            f"{what} has no revision '{revision}'; give one that its Hub page ({page}) lists"
        ) from None
    except UNREACHABLE as error:
        raise SaemakeError(f"{what} {_failure(error, page, otherwise)}") from None


def _refusal(error: Exception, page: str) -> str:
    # `datasets` raises the same exception for missing and gated; only its text differs.
    if isinstance(error, GatedRepoError) or "gated dataset" in str(error):
        return (
            f"is gated: accept its terms on its Hub page ({page}), type `hf auth login`, then run"
            " the same command again"
        )
    return f"is not on the Hub, or private: check its id ({page}), or type `hf auth login`"


def _failure(error: BaseException, page: str, otherwise: str) -> str:
    status = _status(error)
    if status == HTTPStatus.UNAUTHORIZED:
        return (
            "cannot be read: the Hub does not know your token; type `hf auth login` (and unset"
            " HF_TOKEN, which takes precedence)"
        )
    if status == HTTPStatus.FORBIDDEN:  # as for a token that may not read gated repositories
        return (
            "cannot be read: the Hub answers 403; accept its terms on its Hub page, if it has any"
            f" ({page}), type `hf auth login` with a token that may read gated repositories, then"
            " run the same command again"
        )
    if _is_busy(status):
        return (
            f"cannot be read now: the Hub is busy (it answers {status}); run the same command again"
            " in a few minutes"
        )
    return f"cannot be reached ({_reason(error)}): {otherwise}"


def _reason(error: BaseException) -> str:
    return textwrap.shorten(re.split(r"\. | for url", first_line(error))[0], 160)


def patiently(ask: Callable[[], Answer], *, was_reached: bool = False) -> Answer:
    """The result of `ask`. It is called up to TRIES times while the Hub is busy or the connection
    breaks. Without a network it fails at once, unless the Hub `was_reached` just before.

    Raises the last exception of `ask`.
    """
    return _patience(was_reached)(ask)


def every_row(dataset: "IterableDataset") -> Iterator[dict[str, Any]]:
    """The rows of a streamed dataset, each once and in order. If the connection breaks, reading
    resumes after the last row, in the same file.

    Raises the last exception of the reader if TRIES tries fail.
    """
    rows = iter(dataset)
    state: dict[str, Any] | None = None

    def go_on(_: tenacity.RetryCallState) -> None:
        nonlocal rows
        if state is not None:
            dataset.load_state_dict(state)
        rows = iter(dataset)

    patience = _patience(was_reached=True, before=go_on)
    while (row := patience(lambda: next(rows, None))) is not None:
        state = dataset.state_dict()
        yield row


def pinned(
    revisions: Store,
    kind: Literal["model", "dataset"],
    hub: str,
    revision: str,
    resolve: Callable[[str], str],
) -> str:
    """The commit that a revision of a repository named when the project first asked. The store
    records it, so a branch that moves on changes nothing that is built.

    `resolve` returns the commit that a revision names; a commit names itself.
    """
    key = revision_key(kind, hub, revision)
    with revisions.lock([key]):
        if revisions.has(key):
            return resolve(json.loads(revisions.read(key, PINNED))["commit"])
        commit = resolve(revision)
        content = {"kind": kind, "hub": hub, "revision": revision, "commit": commit}
        revisions.put(key, {PINNED: (json.dumps(content, indent=1) + "\n").encode()})
        return commit


def revision_key(kind: str, hub: str, revision: str) -> str:
    """The store's key of the pinned commit of a revision; `kind` is "model" or "dataset"."""
    return digest([kind, hub, revision])


def _patience(
    was_reached: bool, before: Callable[[tenacity.RetryCallState], None] | None = None
) -> tenacity.Retrying:
    """Retries where that may help; calls `before` ahead of each retry."""

    def announced(state: tenacity.RetryCallState) -> None:
        reason, wait_s = _reason(_error(state)), _wait_s(state)
        print(f"saemake: the Hub: {reason}; asking again in {wait_s:.0f} s", flush=True)
        if before is not None:
            before(state)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: _passes(error, was_reached)),
        wait=_wait_s,
        stop=tenacity.stop_after_attempt(TRIES),
        before_sleep=announced,
        reraise=True,
    )


def _passes(error: BaseException, was_reached: bool) -> bool:
    """Whether the error may pass, so that a retry may help."""
    requested_s = _requested_wait_s(error)
    if requested_s is not None and requested_s > LONGEST_WAIT_S:
        return False
    if _is_busy(_status(error)):
        return True
    if isinstance(error, LocalEntryNotFoundError):
        # The client raises it for any failure if its cache has nothing; datasets hides the cause.
        cause = error.__cause__
        return was_reached if cause is None else _passes(cause, was_reached)
    return isinstance(error, BROKEN) and (was_reached or not isinstance(error, NO_NETWORK))


def _wait_s(state: tenacity.RetryCallState) -> float:
    """The wait that the Hub asks for, else twice the previous wait."""
    requested_s = _requested_wait_s(_error(state))
    return 2.0 ** (state.attempt_number - 1) if requested_s is None else requested_s


def _error(state: tenacity.RetryCallState) -> BaseException:
    """The exception of the last try."""
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error


def _requested_wait_s(error: BaseException) -> float | None:
    """The wait that the Hub asks for; None if it names none."""
    response = _response(error)
    if response is None:
        return None
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    retry_after = response.headers.get("Retry-After", "")
    return int(retry_after) if retry_after.isdigit() else None


def _response(error: BaseException) -> httpx2.Response | None:
    """The Hub's response that caused the error; None if there was none."""
    if isinstance(error, HfHubHTTPError):
        return error.response
    return _response(error.__cause__) if error.__cause__ else None


def _status(error: BaseException) -> int | None:
    response = _response(error)
    return None if response is None else response.status_code


def _is_busy(status: int | None) -> bool:
    return status is not None and (status in (408, 429) or status >= 500)
