"""Write what SAEs' pages show: of those that the store lacks, by one run of the LM."""

from pathlib import Path

from saemake.jobs.features import features
from saemake.jobs.job import job

with job(snakemake) as config:
    features(
        config,
        snakemake.params.trained,
        model=Path(snakemake.input.model),
        tokens=Path(snakemake.input.tokens),
        train=Path(snakemake.input.train),
    )
