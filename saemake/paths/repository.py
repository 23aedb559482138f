"""Names of Hub repositories, by the Hub's own rules."""

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from saemake.base.errors import SaemakeError, first_line


def check_repository(repo_id: str) -> None:
    """Raise SaemakeError where the Hub has no repository of such a name."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise SaemakeError(f"no repository of the Hub ({first_line(error)})") from None
