"""Say what a push would do; send nothing."""

from saemake.jobs.job import job
from saemake.jobs.publish import plan_push

with job(snakemake) as config:
    wildcards = snakemake.wildcards
    repository = f"{wildcards.owner}/{wildcards.repo}"
    plan_push(config, wildcards.model, repository, snakemake.output[0])
