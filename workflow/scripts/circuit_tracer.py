"""Write what circuit-tracer needs to know of the transcoders of all layers."""

from saemake.jobs.job import job
from saemake.jobs.publish import describe_layers

with job(snakemake) as config:
    describe_layers(config, snakemake.params.sae, snakemake.output[0])
