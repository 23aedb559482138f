"""The Hub's failures as one clear line each: what could not be reached, and the command to type."""

import contextlib
import textwrap
from collections.abc import Iterator

import httpx2  # what huggingface_hub speaks HTTP with, and raises the errors of
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from saemake.errors import SaemakeError, first_line

REFUSED = (GatedRepoError, RepositoryNotFoundError, DatasetNotFoundError)
UNREACHABLE = (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.HTTPError, ConnectionError)
FAILURES = (*REFUSED, RevisionNotFoundError, *UNREACHABLE)


@contextlib.contextmanager
def reached(what: str, page: str, revision: str, otherwise: str) -> Iterator[None]:
    """Turn the Hub's exceptions in the block into SaemakeError.

    `what` names the repository ("model 'google/gemma-2-2b'"), `page` is its page on the Hub, and
    `otherwise` says what to type where it cannot be reached from here.
    """
    try:
        yield
    except REFUSED as error:
        raise SaemakeError(f"{what} {_refusal(error, page)}") from None
    except RevisionNotFoundError:
        raise SaemakeError(
            f"{what} has no revision '{revision}'; give one that its Hub page ({page}) lists"
        ) from None
    except UNREACHABLE as error:
        reason = textwrap.shorten(first_line(error).split(". ")[0], 160)
        raise SaemakeError(f"{what} cannot be reached ({reason}): {otherwise}") from None


def _refusal(error: Exception, page: str) -> str:
    # datasets says DatasetNotFoundError of a gated one too, and only its words tell.
    gated_text = isinstance(error, DatasetNotFoundError) and "gated dataset" in str(error)
    if isinstance(error, GatedRepoError) or gated_text:
        return (
            f"is gated: accept its terms on its Hub page ({page}), type `hf auth login`, then run"
            " the same command again"
        )
    return f"is not on the Hub, or private: check its id ({page}), or type `hf auth login`"
