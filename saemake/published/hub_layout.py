"""A rebuilt SAE's files as the suite was published."""

import json

from saemake.metrics.rows import Row

# The evaluation that the suite was published with.
EVALUATION = "dictionary_learning"


def eval_results(row: Row) -> bytes:
    """eval_results.json: dictionary_learning's twelve figures by its loader's way of choosing
    latents, and what they are of, as the demo writes them. `row` has that evaluation."""
    figures, made = row.of(EVALUATION), row.circumstances(EVALUATION)
    assert figures is not None
    assert made is not None
    content = {
        **figures.model_dump(),
        "hyperparameters": {"n_inputs": made.documents, "context_length": made.context_tokens},
    }
    return (json.dumps(content, indent=4) + "\n").encode()
