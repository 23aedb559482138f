"""Judge by SAE Bench what the store has no evaluation of, and write the tables."""

from pathlib import Path

from saemake.jobs.job import job
from saemake.jobs.sae_bench import judge

with job(snakemake) as config:
    subjects, given = snakemake.params.subjects, snakemake.input
    data = list(map(Path, given.data))
    judge(config, subjects, snakemake.wildcards.evaluation, Path(given.model), data)
