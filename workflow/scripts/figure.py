"""Draw a figure of one layer, as PDF and SVG."""

from pathlib import Path

from saemake import jobs
from saemake.figures import drawing

with jobs.job(snakemake):
    title = f"{snakemake.wildcards.model}, layer {snakemake.wildcards.layer}"
    name = Path(snakemake.output.pdf).stem
    drawn = drawing.files(name, map(Path, snakemake.input), title)
    for suffix, path in snakemake.output.items():
        jobs.write(path, drawn[suffix])
