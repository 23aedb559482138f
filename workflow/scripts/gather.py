"""Gather JSON objects, one a file, into a list."""

from saemake.jobs.job import job
from saemake.jobs.tables import gather

with job(snakemake):
    gather(snakemake.input, snakemake.output[0])
