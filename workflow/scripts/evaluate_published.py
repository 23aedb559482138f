"""Judge the published SAEs of a sweep by one evaluation, those that the store has nothing of."""

import sys
from pathlib import Path

from saemake import jobs
from saemake.catalogue import entries
from saemake.config import read
from saemake.evaluation import cautions, rows, subjects
from saemake.evaluation.evaluate import LATENTS, evaluate, rows_of
from saemake.llm import weights
from saemake.store import Store
from saemake.text.shards import Tokens

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    sweep, evaluation = snakemake.params.sweep, snakemake.wildcards.evaluation
    judged = {
        name: subjects.published(config, name, entry, evaluation)
        for name, entry in entries.load(config).of_sweep(sweep).items()
    }
    store = Store(Path("results/.store"), "evaluations")
    lm_weights, _ = weights.read(config, Path(snakemake.input.model))
    tokens = Tokens(Path(snakemake.input.tokens))
    evaluate(list(judged.values()), sweep.layer, lm_weights, tokens, store)
    table = {name: rows_of(one, tokens, store) for name, one in judged.items()}
    for name, one in judged.items():
        place = f"{one.subject.name}/{evaluation}"
        jobs.write(f"{place}.json", rows.content(table[name]))
        store.link(one.key, {LATENTS: Path(f"{place}_latents.parquet")})
    if line := cautions.told([row for found in table.values() for row in found]):
        print(line, file=sys.stderr, flush=True)
