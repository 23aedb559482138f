"""Join the evaluations in each folder into its metrics.json."""

from saemake.jobs.job import job
from saemake.jobs.tables import join

with job(snakemake):
    join(snakemake.input.evaluations)
