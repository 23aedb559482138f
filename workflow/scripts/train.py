"""Train the SAEs of a job that the store lacks, and link all of them under results/."""

from pathlib import Path

from saemake.jobs.job import job
from saemake.jobs.train import train

with job(snakemake) as config:
    train(
        config,
        snakemake.params.trained,
        model=Path(snakemake.input.model),
        tokens=Path(snakemake.input.tokens),
    )
