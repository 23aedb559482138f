"""Check that all is here which a model's suite needs of the network."""

from saemake.jobs import fetched
from saemake.jobs.job import job

with job(snakemake) as config:
    model = snakemake.wildcards.model
    fetched.of_suite(config, model, snakemake.input, snakemake.output[0])
