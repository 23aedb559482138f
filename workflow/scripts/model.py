"""Fetch a model's files, check them against the config and describe them."""

from saemake.jobs.inputs import fetch_model
from saemake.jobs.job import job

with job(snakemake) as config:
    fetch_model(config, snakemake.wildcards.model, snakemake.output[0])
