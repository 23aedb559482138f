"""The Hub: asked again where it is busy or a connection breaks, its revisions pinned, its failures
as one clear line each: what could not be reached, and the command to type."""

import contextlib
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import httpx2  # what huggingface_hub speaks HTTP with, and raises the errors of
import tenacity
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from saemake.base.digest import digest
from saemake.base.errors import SaemakeError, first_line
from saemake.base.store import Store

if TYPE_CHECKING:  # a GPU's jobs speak to the Hub's cache, and may run where `datasets` is not
    from datasets import IterableDataset

REFUSED = (GatedRepoError, RepositoryNotFoundError)
UNREACHABLE = (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.HTTPError, ConnectionError)
FAILURES = (*REFUSED, RevisionNotFoundError, *UNREACHABLE)
BROKEN = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
NO_NETWORK = (httpx2.ConnectError, httpx2.ConnectTimeout)
# How often a thing is asked for in a row, in waits of 1, 2, 4, 8, 16 s where the Hub names none.
TRIES = 6
# The Hub counts requests over five minutes.
LONGEST_WAIT_S = 600
PINNED = "commit.json"
Asked = TypeVar("Asked")


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
    `otherwise` says what to type where it cannot be reached from here. `also_refused` are another
    client's exceptions for a repository that is missing, private or gated.
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
        raise SaemakeError(f"{what} {_failure(error, otherwise)}") from None


def _refusal(error: Exception, page: str) -> str:
    # `datasets` raises one exception for both cases, and only its words tell them apart.
    if isinstance(error, GatedRepoError) or "gated dataset" in str(error):
        return (
            f"is gated: accept its terms on its Hub page ({page}), type `hf auth login`, then run"
            " the same command again"
        )
    return f"is not on the Hub, or private: check its id ({page}), or type `hf auth login`"


def _failure(error: BaseException, otherwise: str) -> str:
    status = _status(error)
    if status == HTTPStatus.UNAUTHORIZED:
        return (
            "cannot be read: the Hub does not know your token; type `hf auth login` (and unset"
            " HF_TOKEN, which goes before it)"
        )
    if _is_busy(status):
        return (
            f"cannot be had now: the Hub is busy (it answers {status}); run the same command again"
            " in some minutes"
        )
    return f"cannot be reached ({_reason(error)}): {otherwise}"


def _reason(error: BaseException) -> str:
    return textwrap.shorten(re.split(r"\. | for url", first_line(error))[0], 160)


def patiently(ask: Callable[[], Asked], *, was_reached: bool = False) -> Asked:
    """What `ask` gives; asked again where the Hub is busy or the connection breaks, TRIES times in
    all. Without a network it fails at once, but not where the Hub `was_reached` just now.

    Raises what `ask` raised last.
    """
    return _patience(was_reached)(ask)


def every_row(dataset: "IterableDataset") -> Iterator[dict[str, Any]]:
    """The rows of a streamed dataset, each once and in its order, whatever breaks on the way: it
    goes on after the last row that it gave, in the file where that is.

    Raises what the reading raised, where asking again TRIES times has not helped.
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
    """The commit that a revision of a repository named when the project first asked, which its
    store keeps: a branch that moves on changes nothing that is built.

    `resolve` gives the commit that a revision names, or a commit itself.
    """
    key = revision_key(kind, hub, revision)
    with revisions.lock([key]):
        if revisions.has(key):
            return resolve(json.loads(revisions.read(key, PINNED))["commit"])
        commit = resolve(revision)
        named = {"kind": kind, "hub": hub, "revision": revision, "commit": commit}
        revisions.put(key, {PINNED: (json.dumps(named, indent=1) + "\n").encode()})
        return commit


def revision_key(kind: str, hub: str, revision: str) -> str:
    """What names, in the store, what a revision of a "model" or "dataset" was first found to be."""
    return digest([kind, hub, revision])


def _patience(
    was_reached: bool, before: Callable[[tenacity.RetryCallState], None] | None = None
) -> tenacity.Retrying:
    """Asks again where that may help; `before` it does."""

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
    """Whether asking again may help."""
    asked_s = _asked_wait_s(error)
    if asked_s is not None and asked_s > LONGEST_WAIT_S:
        return False
    if _is_busy(_status(error)):
        return True
    if isinstance(error, LocalEntryNotFoundError):
        # What the client says of any failure where its cache has nothing; datasets hides why.
        cause = error.__cause__
        return was_reached if cause is None else _passes(cause, was_reached)
    return isinstance(error, BROKEN) and (was_reached or not isinstance(error, NO_NETWORK))


def _wait_s(state: tenacity.RetryCallState) -> float:
    """As long as the Hub says, or twice as long as before."""
    asked_s = _asked_wait_s(_error(state))
    return 2.0 ** (state.attempt_number - 1) if asked_s is None else asked_s


def _error(state: tenacity.RetryCallState) -> BaseException:
    """What the last try raised."""
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error


def _asked_wait_s(error: BaseException) -> float | None:
    """The wait that the Hub asks for, where it does."""
    answer = _answer(error)
    if answer is None:
        return None
    limit = parse_ratelimit_headers(answer.headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    asked = answer.headers.get("Retry-After", "")
    return int(asked) if asked.isdigit() else None


def _answer(error: BaseException) -> httpx2.Response | None:
    """What the Hub answered, where the error, or what caused it, is an answer."""
    if isinstance(error, HfHubHTTPError):
        return error.response
    return _answer(error.__cause__) if error.__cause__ else None


def _status(error: BaseException) -> int | None:
    answer = _answer(error)
    return None if answer is None else answer.status_code


def _is_busy(status: int | None) -> bool:
    return status is not None and (status in (408, 429) or status >= 500)
