"""What datasets and huggingface_hub raise, as the line that a user reads."""

import pytest
from datasets.exceptions import DatasetNotFoundError

from saemake.errors import SaemakeError
from saemake.hub import FAILURES, reached


def line(error):
    with (
        pytest.raises(SaemakeError) as caught,
        reached("dataset 'a/b'", "datasets/a/b", "v1", "go"),
    ):
        raise error
    return str(caught.value)


def test_a_gated_dataset_which_datasets_says_is_not_found():
    words = "Dataset 'a/b' is a gated dataset on the Hub. You must be authenticated to access it."
    said = line(DatasetNotFoundError(words))
    assert said.startswith(
        "dataset 'a/b' is gated: accept its terms on its Hub page (datasets/a/b)"
    )
    assert "type `hf auth login`" in said


def test_a_dataset_that_is_not_there():
    words = "Dataset 'a/b' doesn't exist on the Hub or cannot be accessed."
    assert "is not on the Hub, or private" in line(DatasetNotFoundError(words))


def test_a_lost_connection_says_the_way_out():
    assert line(ConnectionError("reset. by peer")) == "dataset 'a/b' cannot be reached (reset): go"


def test_what_is_no_failure_of_the_hub_passes_through():
    with pytest.raises(KeyError), reached("x", "y", "z", "go"):
        raise KeyError
    assert KeyError not in FAILURES
