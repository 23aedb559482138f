"""Lay out a checkpoint of a rebuilt SAE as the suite was published."""

from saemake import jobs

with jobs.job(snakemake):
    jobs.copy(snakemake.input[0], snakemake.output[0])
