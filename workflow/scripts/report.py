"""Write the report of a suite at one hookpoint."""

from saemake.jobs.job import job
from saemake.jobs.report import report
from saemake.jobs.rules import hookpoint_in

with job(snakemake) as config:
    model, hookpoint = snakemake.wildcards.model, hookpoint_in(snakemake.wildcards)
    report(config, model, hookpoint, snakemake.input.figures, snakemake.output[0])
