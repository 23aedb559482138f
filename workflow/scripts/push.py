"""Push a suite to the Hub and keep the receipt."""

from pathlib import Path

from saemake import jobs
from saemake.config import read
from saemake.publishing import plan
from saemake.publishing.push import push

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    wildcards, output = snakemake.wildcards, snakemake.output[0]
    files = plan.suite(config, wildcards.model, Path(output).parent)
    repository = plan.look(f"{wildcards.owner}/{wildcards.repo}")
    receipt = push(plan.plan(repository, wildcards.model, files, config.publishing))
    jobs.write_json(output, receipt)
