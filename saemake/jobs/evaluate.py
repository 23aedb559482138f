"""Judge what the store has no evaluation of, and write the tables of all that a job judges."""

from pathlib import Path

from saemake.config.config import Config
from saemake.inputs import weights
from saemake.judging.evaluate import LATENTS, rows_of
from saemake.judging.evaluate import evaluate as judge
from saemake.judging.subjects import tables_of
from saemake.judging.tables import write_tables
from saemake.paths import stores
from saemake.paths.files import latents_file
from saemake.paths.names import STORE, Subjects
from saemake.text.shards import Tokens


def evaluate(
    config: Config, subjects: Subjects, evaluation: str, model: Path, tokens: Path
) -> None:
    """Judge, and write the rows of each table.

    `model` is the model.json of the LM, `tokens` the manifest of the evaluation's text. Raises
    SaemakeError where the tokens are of another recipe, or what is judged is damaged.
    """
    lm_weights, description = weights.read(config, model)
    store, text = stores.store(config, "evaluations"), Tokens(tokens)
    tables = tables_of(config, subjects, evaluation, description["d_model"], STORE)
    judge(
        [subject for table in tables for subject in table.judged],
        subjects.layer,
        lm_weights,
        text,
        store,
    )
    write_tables(
        tables,
        lambda judged: rows_of(judged, text, store),
        store,
        LATENTS,
        latents_file(evaluation),
    )
