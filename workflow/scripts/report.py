"""Write the report of a suite at one layer."""

from saemake.jobs.job import job
from saemake.jobs.report import report

with job(snakemake) as config:
    layer = int(snakemake.wildcards.layer)
    report(config, snakemake.wildcards.model, layer, snakemake.input.figures, snakemake.output[0])
