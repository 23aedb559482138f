"""Lay out a checkpoint of a rebuilt SAE as the suite was published."""

from saemake.base.files import copy
from saemake.jobs.job import job

with job(snakemake):
    copy(snakemake.input[0], snakemake.output[0])
