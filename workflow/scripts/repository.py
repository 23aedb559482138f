"""Write down the commit of a repository of published SAEs."""

from saemake.jobs.job import job
from saemake.jobs.published import pin

with job(snakemake) as config:
    repository = f"{snakemake.wildcards.owner}/{snakemake.wildcards.repository}"
    pin(config, repository, snakemake.params.revision, snakemake.output[0])
