"""Fit the principal components of the activations at a site into the store and link them."""

from pathlib import Path

from saemake.jobs.baselines import fit_baselines
from saemake.jobs.job import job
from saemake.jobs.rules import hookpoint_in

with job(snakemake) as config:
    model, hookpoint = snakemake.wildcards.model, hookpoint_in(snakemake.wildcards)
    inputs = [Path(snakemake.input.model), Path(snakemake.input.tokens)]
    fit_baselines(config, model, hookpoint, *inputs, output=Path(snakemake.output[0]))
