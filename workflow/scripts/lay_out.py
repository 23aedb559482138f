"""Lay out a rebuilt SAE as the suite was published."""

from pathlib import Path

from saemake import jobs
from saemake.catalogue import hub_layout
from saemake.evaluation import rows

with jobs.job(snakemake):
    judged = rows.read_file(Path(snakemake.input.judged))
    jobs.copy(snakemake.input.weights, snakemake.output.weights)
    jobs.copy(snakemake.input.config, snakemake.output.config)
    jobs.write(snakemake.output.results, hub_layout.eval_results(judged[0]))
