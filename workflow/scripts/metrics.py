"""Gather the metrics of a sweep's SAEs, and of the baselines, into one table."""

from pathlib import Path

from saemake import jobs
from saemake.evaluation import rows

with jobs.job(snakemake):
    paths = [*snakemake.input.saes, snakemake.input.baselines]
    table = [row for path in paths for row in rows.read_file(Path(path))]
    jobs.write(snakemake.output[0], rows.content(table))
