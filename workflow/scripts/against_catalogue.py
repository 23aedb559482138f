"""Compare a rebuilt SAE with what the catalogue says of the published one."""

from pathlib import Path

from saemake.jobs.job import job
from saemake.jobs.published import compare_with_catalogue

with job(snakemake) as config:
    compare_with_catalogue(config, Path(snakemake.input[0]), Path(snakemake.output[0]))
