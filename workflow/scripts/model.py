"""Fetch a model's files, check them against the config and describe them."""

from pathlib import Path

from saemake import jobs
from saemake.config import read
from saemake.llm import weights
from saemake.store import Store

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    revisions = Store(Path("results/.store"), "revisions")
    description = weights.fetch(config, snakemake.wildcards.model, revisions)
    jobs.write_json(snakemake.output[0], description)
