"""Write the model card of a suite and the config that rebuilds it."""

from saemake.jobs.job import job
from saemake.jobs.publish import describe

with job(snakemake) as config:
    wildcards, output = snakemake.wildcards, snakemake.output
    repository = f"{wildcards.owner}/{wildcards.repo}"
    describe(config, wildcards.model, repository, output.card, output.config)
