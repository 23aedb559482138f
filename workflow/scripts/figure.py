"""Draw a figure of one layer, as PDF and SVG."""

from pathlib import Path

from saemake.jobs.draw import draw
from saemake.jobs.job import job

with job(snakemake):
    title = f"{snakemake.wildcards.model}, layer {snakemake.wildcards.layer}"
    outputs = dict(snakemake.output.items())
    draw(Path(outputs["pdf"]).stem, title, snakemake.input, outputs)
