"""The files of a rebuilt SAE in the layout of the published suite."""

import json

from saemake.metrics.rows import Circumstances, Row
from saemake.paths.files import LAID_OUT_BY


def eval_results(row: Row) -> bytes:
    """eval_results.json: dictionary_learning's twelve figures, with latents chosen as its loader
    does, and the amount of text, in the form of dictionary_learning's demo. `row` must have that
    evaluation."""
    figures, made = row.of(LAID_OUT_BY), row.circumstances(LAID_OUT_BY)
    assert figures is not None
    assert isinstance(made, Circumstances)
    content = {
        **figures.model_dump(),
        "hyperparameters": {"n_inputs": made.documents, "context_length": made.context_tokens},
    }
    return (json.dumps(content, indent=4) + "\n").encode()
