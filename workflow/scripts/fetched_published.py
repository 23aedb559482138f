"""Check that a model's published SAEs are here."""

from saemake.jobs import fetched
from saemake.jobs.job import job

with job(snakemake) as config:
    fetched.of_published(config, snakemake.input, snakemake.output[0])
