"""Fetch a dataset that SAE Bench's evaluations read."""

from saemake.jobs.job import job
from saemake.jobs.sae_bench import fetch_dataset

with job(snakemake) as config:
    fetch_dataset(config, snakemake.wildcards.dataset, snakemake.output[0])
