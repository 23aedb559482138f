"""Compare a rebuilt SAE with the published one."""

from pathlib import Path

from saemake import devices, jobs
from saemake.catalogue import compare, entries
from saemake.config import read

with jobs.job(snakemake):
    config = read(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1], [])
    published = Path(snakemake.output[0]).parent
    name = str(published.relative_to(entries.PUBLISHED))
    compared = compare.compare(
        entries.load(config).named(name),
        name,
        compare.Place.read(Path(snakemake.input.results[0]).parent),
        compare.Place.read(published),
        config.published.tolerances,
        devices.choose(snakemake.threads),
    )
    jobs.write_json(snakemake.output[0], compared)
