"""Gather JSON objects, one a file, into a list."""

import json
from pathlib import Path

from saemake import jobs

with jobs.job(snakemake):
    gathered = [json.loads(Path(path).read_text()) for path in snakemake.input]
    jobs.write_json(snakemake.output[0], gathered)
