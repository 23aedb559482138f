"""Fit the principal components of a layer's activations into the store and link them."""

from pathlib import Path

from saemake.jobs.baselines import fit_baselines
from saemake.jobs.job import job

with job(snakemake) as config:
    model, layer = snakemake.wildcards.model, int(snakemake.wildcards.layer)
    inputs = [Path(snakemake.input.model), Path(snakemake.input.tokens)]
    fit_baselines(config, model, layer, *inputs, output=Path(snakemake.output[0]))
