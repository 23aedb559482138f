"""Join the evaluations in each folder into its metrics.json; of a sweep also the table of all, with
the baselines."""

import itertools
from pathlib import Path

from saemake import jobs
from saemake.evaluation import rows

with jobs.job(snakemake.log[0]):
    table: list[rows.Row] = []
    evaluations = map(Path, snakemake.input.evaluations)
    for folder, files in itertools.groupby(evaluations, key=lambda path: path.parent):
        joined = rows.joined([file.read_bytes() for file in files])
        jobs.write(f"{folder}/metrics.json", rows.content(joined))
        table += joined
    if hasattr(snakemake.output, "table"):
        table += rows.read(Path(snakemake.input.baselines).read_bytes())
        jobs.write(snakemake.output.table, rows.content(table))
