"""Compare a rebuilt SAE with what the catalogue says of the published one."""

from pathlib import Path

from saemake import jobs
from saemake.catalogue import compare, entries
from saemake.config import read
from saemake.evaluation import rows

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    name = str(Path(snakemake.output[0]).parent.relative_to(entries.PUBLISHED))
    compared = compare.against_catalogue(
        entries.load(config).named(name),
        name,
        rows.read_file(Path(snakemake.input[0])),
        config.published.tolerances,
    )
    jobs.write_json(snakemake.output[0], compared)
