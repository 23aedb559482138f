"""Judge the baselines of a layer by one evaluation, those that the store has nothing of."""

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
    wildcards, root = snakemake.wildcards, Path("results/.store")
    lm_weights, description = weights.read(config, Path(snakemake.input.model))
    judged = subjects.all_baselines(
        config,
        wildcards.model,
        int(wildcards.layer),
        wildcards.evaluation,
        description["d_model"],
        Store(root, "baselines"),
    )
    store, tokens = Store(root, "evaluations"), Tokens(Path(snakemake.input.tokens))
    evaluate(judged, int(wildcards.layer), lm_weights, tokens, store)
    found = [row for one in judged for row in rows_of(one, tokens, store)]
    jobs.write(snakemake.output[0], rows.content(found))
