"""Gather the metrics of a sweep's SAEs, and of the baselines, into one table."""

from saemake.jobs.job import job
from saemake.jobs.tables import sweep_table

with job(snakemake):
    sweep_table(snakemake.input.saes, snakemake.input.baselines, snakemake.output[0])
