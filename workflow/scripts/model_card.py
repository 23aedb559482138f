"""Write the model card of a suite and the config that rebuilds it."""

from pathlib import Path

from saemake import jobs
from saemake.config import read
from saemake.publishing import card, rebuilding

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    wildcards = snakemake.wildcards
    content = card.render(config, wildcards.model, f"{wildcards.owner}/{wildcards.repo}")
    jobs.write(snakemake.output.card, content.encode())
    over = rebuilding.config_yaml(config, wildcards.model)
    jobs.write(snakemake.output.config, over.encode())
