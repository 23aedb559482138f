"""Draw a figure of one layer, as PDF and SVG."""

from pathlib import Path

from saemake import figures
from saemake.jobs.draw import draw
from saemake.jobs.job import job

with job(snakemake):
    outputs = dict(snakemake.output.items())
    figure = figures.get(Path(outputs["pdf"]).stem)
    title = f"{snakemake.wildcards.model}, residual stream after layer {snakemake.wildcards.layer}"
    draw(figure, title, snakemake.input, outputs)
