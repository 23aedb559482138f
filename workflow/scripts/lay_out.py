"""Lay out a rebuilt SAE as the suite was published."""

from saemake.jobs.job import job
from saemake.jobs.published import lay_out

with job(snakemake):
    files = snakemake.input
    lay_out(files.weights, files.config, files.judged, snakemake.output)
