"""Write down the commit of a repository of published SAEs."""

from saemake import jobs
from saemake.catalogue import fetch

with jobs.job(snakemake):
    wildcards = snakemake.wildcards
    pinned = fetch.pin(f"{wildcards.owner}/{wildcards.repository}", snakemake.params.revision)
    jobs.write_json(snakemake.output[0], pinned)
