"""Judge what the store has no evaluation of, and write the tables of all that a job judges."""

import contextlib
from pathlib import Path

from saemake.base.errors import SaemakeError
from saemake.base.store import Store
from saemake.config.config import Config
from saemake.inputs import weights
from saemake.jobs import passes
from saemake.judging.evaluate import LATENTS, Judged, rows_of
from saemake.judging.evaluate import evaluate as judge
from saemake.judging.subjects import sae, tables_of
from saemake.judging.tables import write_tables
from saemake.paths import stores
from saemake.paths.files import latents_file
from saemake.paths.names import STORE, SaeName, Subjects, Sweep
from saemake.recipes.training import sae_recipe
from saemake.text.shards import Tokens


def evaluate(
    config: Config, subjects: Subjects, evaluation: str, model: Path, tokens: Path
) -> None:
    """Judge, and write the rows of each table. What this run of the workflow judges together with
    it is judged too, as far as it is trained.

    `model` is the model.json of the LM, `tokens` the manifest of the evaluation's text. Raises
    SaemakeError where the tokens are of another recipe, or what is judged is damaged.
    """
    lm_weights, description = weights.read(config, model)
    store, text = stores.store(config, "evaluations"), Tokens(tokens)
    tables = tables_of(config, subjects, evaluation, description["d_model"], STORE)
    judged = [subject for table in tables for subject in table.judged]
    # Only for a job that judges: it reads the SAEs of all the others.
    lacks = not all(store.holds(subject.key) for subject in judged)
    beside = _beside(config, subjects, evaluation) if lacks else []
    judge(judged, subjects.hookpoint, lm_weights, text, store, beside)
    write_tables(
        tables,
        lambda judged: rows_of(judged, text, store),
        store,
        LATENTS,
        latents_file(evaluation),
    )


def _beside(config: Config, subjects: Subjects, evaluation: str) -> list[Judged]:
    """SAEs of other jobs that the store has."""
    if not isinstance(subjects, Sweep | SaeName):
        return []
    found, saes = [], Store(STORE, "saes")
    for name in passes.judged_with(config, subjects, evaluation):
        # What is damaged or not trained yet is left to its own job.
        with contextlib.suppress(SaemakeError, OSError):
            place = saes.folder / sae_recipe(config, name).hash
            found.append(sae(config, name, evaluation, place))
    return found
