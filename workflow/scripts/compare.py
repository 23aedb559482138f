"""Compare a rebuilt SAE with the published one."""

from pathlib import Path

from saemake.jobs.job import job
from saemake.jobs.published import compare_with_published

with job(snakemake) as config:
    output = snakemake.output[0]
    rebuilt, published = Path(snakemake.input.results[0]).parent, Path(output).parent
    files = next(map(Path, snakemake.input.files), None)
    compare_with_published(config, rebuilt, published, snakemake.threads, output, files)
