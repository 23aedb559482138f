"""Judge the checkpoints of an SAE by one evaluation, those that the store has nothing of."""

from pathlib import Path

from saemake import jobs
from saemake.config import read
from saemake.evaluation import rows, subjects
from saemake.evaluation.evaluate import evaluate, rows_of
from saemake.llm import weights
from saemake.store import Store
from saemake.text.shards import Tokens

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    sae, evaluation = snakemake.params.sae, snakemake.wildcards.evaluation
    steps = config.checkpoint_steps(sae.sweep.model, sae.sweep.architecture)
    root = Path("results/.store")
    store, checkpoints = Store(root, "evaluations"), Store(root, "checkpoints")
    judged = [subjects.checkpoint(config, sae, step, evaluation, checkpoints) for step in steps]
    lm_weights, _ = weights.read(config, Path(snakemake.input.model))
    tokens = Tokens(Path(snakemake.input.tokens))
    evaluate(judged, sae.sweep.layer, lm_weights, tokens, store)
    found = [row for one in judged for row in rows_of(one, tokens, store)]
    jobs.write(snakemake.output[0], rows.content(found))
