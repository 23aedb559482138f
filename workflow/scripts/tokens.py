"""Tokenise the text of a use into the store and link its shards beside the manifest."""

from pathlib import Path

from saemake.jobs.inputs import tokenise
from saemake.jobs.job import job

with job(snakemake) as config:
    model, use = snakemake.wildcards.model, snakemake.wildcards.use
    after = Path(snakemake.input.after) if "after" in snakemake.input.keys() else None  # noqa: SIM118
    output = Path(snakemake.output[0])
    tokenise(config, model, use, Path(snakemake.input.model), after, output)
