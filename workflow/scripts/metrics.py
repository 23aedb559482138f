"""Gather the metrics of a sweep's SAEs, and of the baselines, into one table."""

import sys
from pathlib import Path

from saemake import jobs
from saemake.evaluation import cautions, rows

with jobs.job(snakemake):
    paths = [*snakemake.input.saes, snakemake.input.baselines]
    gathered = [row for path in paths for row in rows.read_file(Path(path))]
    table = cautions.beside_pca(gathered)
    jobs.write(snakemake.output[0], rows.content(table))
    before = [line for row in gathered for line in row.warnings]
    if line := cautions.told(table, but=before):
        print(line, file=sys.stderr, flush=True)
