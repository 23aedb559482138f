"""Draw a figure of one hookpoint, as PDF and SVG."""

from pathlib import Path

from saemake import figures
from saemake.jobs.draw import draw
from saemake.jobs.job import job
from saemake.jobs.rules import hookpoint_in

with job(snakemake):
    outputs = dict(snakemake.output.items())
    figure = figures.get(Path(outputs["pdf"]).stem)
    title = f"{snakemake.wildcards.model}, {hookpoint_in(snakemake.wildcards).described}"
    draw(figure, title, snakemake.input, outputs)
