"""Write an SAE in SAELens's format."""

from saemake.jobs.job import job
from saemake.jobs.publish import export

with job(snakemake) as config:
    export(config, snakemake.params.sae, snakemake.output.weights, snakemake.output.cfg)
