"""Evaluate the SAEs of a sweep that the store has no metrics of, and link all metrics."""

from pathlib import Path

from saemake import jobs, names
from saemake.config import read
from saemake.evaluation.evaluate import METRICS, evaluate_sweep, named
from saemake.llm import weights
from saemake.recipes import evaluation_recipe
from saemake.store import Store
from saemake.text.shards import Tokens

with jobs.job(snakemake.log[0]):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    sweep = snakemake.params.sweep
    members = names.members(config, sweep)
    store = Store(Path("results/.store"), "evaluations")
    lm_weights, _ = weights.read(config, Path(snakemake.input.model))
    keys = evaluate_sweep(
        {member: evaluation_recipe(config, member) for member in members},
        width=config.widths[sweep.width],
        folders={member: Path(member.folder) for member in members},
        weights=lm_weights,
        tokens=Tokens(Path(snakemake.input.tokens)),
        store=store,
    )
    for member, key in keys.items():
        content = named(member, config.widths[sweep.width], store.read(key, METRICS))
        jobs.write(f"{member.folder}/{METRICS}", content)
