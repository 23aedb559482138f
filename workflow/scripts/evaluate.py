"""Judge what the store has no evaluation of, and write the tables of all that a job judges."""

from pathlib import Path

from saemake.jobs.evaluate import evaluate
from saemake.jobs.job import job

with job(snakemake) as config:
    evaluate(
        config,
        snakemake.params.subjects,
        snakemake.wildcards.evaluation,
        model=Path(snakemake.input.model),
        tokens=Path(snakemake.input.tokens),
    )
