"""Write down the commit of a repository of published SAEs."""

from saemake.jobs.job import job
from saemake.jobs.published import pin

with job(snakemake):
    repository = f"{snakemake.wildcards.owner}/{snakemake.wildcards.repository}"
    pin(repository, snakemake.params.revision, snakemake.output[0])
