"""Compare the seeds of a sweep's SAEs, each pair."""

from saemake.jobs.job import job
from saemake.jobs.stability import write_stability

with job(snakemake) as config:
    sweep, table, output = snakemake.params.sweep, snakemake.input.table, snakemake.output[0]
    write_stability(config, sweep, table, snakemake.threads, output)
