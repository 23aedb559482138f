"""Write an SAE in SAELens's format."""

from pathlib import Path

from saemake import jobs
from saemake.config import read
from saemake.publishing import saelens

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    weights, cfg = saelens.export(config, snakemake.params.sae)
    jobs.write(snakemake.output.weights, weights)
    jobs.write(snakemake.output.cfg, cfg)
