"""Push a suite to the Hub and keep the receipt."""

from saemake.jobs.job import job
from saemake.jobs.publish import push

with job(snakemake) as config:
    wildcards = snakemake.wildcards
    repository = f"{wildcards.owner}/{wildcards.repo}"
    push(config, wildcards.model, repository, snakemake.output[0])
