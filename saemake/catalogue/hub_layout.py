"""A rebuilt SAE's files as the suite was published."""

import json

from saemake.evaluation.rows import Row


def eval_results(row: Row) -> bytes:
    """eval_results.json: dictionary_learning's twelve figures by its loader's way of choosing
    latents, and what they are of, as the demo writes them. `row` has that evaluation."""
    made = row.evaluations.dictionary_learning
    assert row.dictionary_learning is not None
    assert made is not None
    content = {
        **row.dictionary_learning.model_dump(),
        "hyperparameters": {"n_inputs": made.documents, "context_length": made.context_tokens},
    }
    return (json.dumps(content, indent=4) + "\n").encode()
