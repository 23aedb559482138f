"""Gather the metrics of a sweep's SAEs: one row an SAE."""

import json
from pathlib import Path

from saemake import jobs

with jobs.job(snakemake.log[0]):
    rows = [json.loads(Path(path).read_text()) for path in snakemake.input]
    jobs.write(snakemake.output[0], (json.dumps(rows, indent=1) + "\n").encode())
