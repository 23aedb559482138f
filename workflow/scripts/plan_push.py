"""Say what a push would do; send nothing."""

from pathlib import Path

from saemake import jobs
from saemake.config import read
from saemake.publishing import plan

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    wildcards, output = snakemake.wildcards, snakemake.output[0]
    files = plan.suite(config, wildcards.model, Path(output).parent)
    repository = plan.look(f"{wildcards.owner}/{wildcards.repo}")
    text = plan.text(plan.plan(repository, wildcards.model, files, config.publishing))
    print(text, flush=True)
    jobs.write(output, text.encode())
