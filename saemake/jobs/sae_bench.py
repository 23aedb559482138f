"""SAE Bench's own evaluations: fetch the data, set up once, judge what the store has no evaluation
of, and write the tables."""

from collections.abc import Sequence
from pathlib import Path

from saemake.base.files import write_json
from saemake.base.store import Store
from saemake.config.config import Config
from saemake.inputs import datasets
from saemake.judging.by_sae_bench import DETAILS, Bench, Inputs, evaluate, rows_of
from saemake.judging.subjects import tables_of
from saemake.judging.tables import write_tables
from saemake.paths import stores
from saemake.paths.files import details_file
from saemake.paths.names import STORE, SetupName, Subjects
from saemake.recipes.judging import setups


def fetch_dataset(config: Config, name: str, output: str) -> None:
    """Fetch a dataset, and say what was fetched."""
    write_json(output, datasets.fetch(config, name, Store(STORE, "datasets")))


def set_up(
    config: Config, setup: SetupName, model: Path, data: Sequence[Path], output: str
) -> None:
    """Set up what no SAE changes. `model` is the model.json of the LM that runs, `data` the files
    under datasets/ of what is read."""
    bench = Bench(config, setup, Inputs(model, data))
    bench.set_up()
    write_json(output, {"recipe_hash": bench.recipe.hash, **bench.sources})


def judge(
    config: Config, subjects: Subjects, evaluation: str, model: Path, data: Sequence[Path]
) -> None:
    """Judge what the store has no evaluation of, by SAE Bench, and write the row and the details of
    each."""
    inputs = Inputs(model, data)
    benches = [
        Bench(config, setup, inputs)
        for setup in setups(config, subjects.model, subjects.hookpoint.layer, evaluation)
    ]
    store = stores.store(config, "evaluations")
    tables = tables_of(config, subjects, evaluation, benches[0].lm["d_model"], STORE)
    evaluate(benches, [subject for table in tables for subject in table.judged], store)
    write_tables(
        tables, lambda judged: rows_of(judged, store), store, DETAILS, details_file(evaluation)
    )
