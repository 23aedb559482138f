"""Fetch a published SAE and check it."""

from pathlib import Path

from saemake import jobs
from saemake.catalogue import entries, fetch
from saemake.config import read

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    entry = entries.load(config).at(snakemake.params.place)
    found = fetch.fetch(entry, Path(snakemake.input[0]))
    for path in map(Path, snakemake.output):
        jobs.write(str(path), found[path.name])
