"""Join the evaluations in each folder into its metrics.json."""

import itertools
from pathlib import Path

from saemake import jobs
from saemake.evaluation import rows

with jobs.job(snakemake):
    evaluations = map(Path, snakemake.input.evaluations)
    for folder, files in itertools.groupby(evaluations, key=lambda path: path.parent):
        joined = rows.joined([rows.read_file(file) for file in files])
        jobs.write(f"{folder}/metrics.json", rows.content(joined))
