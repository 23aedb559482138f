"""The Hub's failures as one clear line each: what could not be reached, and the way out."""

import contextlib
from collections.abc import Iterator

import httpx
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from saemake.errors import SaemakeError


@contextlib.contextmanager
def reached(kind: str, hub_id: str, revision: str) -> Iterator[None]:
    """Turn the Hub's exceptions in the block into SaemakeError. `kind`: 'model' or 'dataset'."""
    what = f"{kind} '{hub_id}'"
    page = "datasets/" * (kind == "dataset") + hub_id
    try:
        yield
    except GatedRepoError:
        raise SaemakeError(
            f"{what} is gated: accept its terms at its Hub page ({page}), type `hf auth login`,"
            " then run the same command again"
        ) from None
    except RevisionNotFoundError:
        raise SaemakeError(
            f"{what} has no revision '{revision}'; give one that its Hub page ({page}) lists"
        ) from None
    except (RepositoryNotFoundError, DatasetNotFoundError) as error:
        if "gated" in str(error):
            raise SaemakeError(
                f"{what} is gated: accept its terms at its Hub page ({page}), type"
                " `hf auth login`, then run the same command again"
            ) from None
        raise SaemakeError(
            f"{what} is not on the Hub, or private: check its id; for a private one type"
            " `hf auth login`"
        ) from None
    except (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        HfHubHTTPError,
        httpx.HTTPError,
        ConnectionError,
    ) as error:
        option = "--repo-type dataset " if kind == "dataset" else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SaemakeError(
            f"{what} cannot be reached ({reason[:120]}): where there is a network, type"
            f" `hf download {option}{hub_id} --revision {revision}`, then this command again"
        ) from None
