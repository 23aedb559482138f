"""Write down the commit of a repository of published SAEs."""

import json

from saemake import jobs
from saemake.catalogue import fetch

with jobs.job(snakemake.log[0]):
    wildcards = snakemake.wildcards
    pinned = fetch.pin(f"{wildcards.owner}/{wildcards.repository}", snakemake.params.revision)
    jobs.write(snakemake.output[0], (json.dumps(pinned, indent=1) + "\n").encode())
