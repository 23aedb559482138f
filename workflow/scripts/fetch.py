"""Fetch a published SAE and check it."""

from pathlib import Path

from saemake.jobs.job import job
from saemake.jobs.published import fetch_sae

with job(snakemake) as config:
    fetch_sae(config, snakemake.params.place, Path(snakemake.input[0]), snakemake.output)
