"""Judge the SAEs of a sweep by one evaluation, those that the store has nothing of."""

import sys
from pathlib import Path

from saemake import jobs, names
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
        member: subjects.sae(config, member, evaluation) for member in names.members(config, sweep)
    }
    store = Store(Path("results/.store"), "evaluations")
    lm_weights, _ = weights.read(config, Path(snakemake.input.model))
    tokens = Tokens(Path(snakemake.input.tokens))
    evaluate(list(judged.values()), sweep.layer, lm_weights, tokens, store)
    table = {member: rows_of(one, tokens, store) for member, one in judged.items()}
    for member, one in judged.items():
        jobs.write(f"{member.folder}/{evaluation}.json", rows.content(table[member]))
        store.link(one.key, {LATENTS: Path(member.folder, f"{evaluation}_latents.parquet")})
    table_rows = [row for found in table.values() for row in found]
    if line := cautions.told(table_rows, but=cautions.of_training(table_rows)):
        print(line, file=sys.stderr, flush=True)
