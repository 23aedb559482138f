"""Write a transcoder in circuit-tracer's format."""

from saemake.jobs.job import job
from saemake.jobs.publish import export_layer

with job(snakemake) as config:
    export_layer(config, snakemake.params.sae, snakemake.output[0])
