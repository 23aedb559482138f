"""Draw a figure of a model's suite at one layer, as PDF and SVG."""

from saemake.jobs.draw import draw
from saemake.jobs.job import job

with job(snakemake):
    model, layer = snakemake.wildcards.model, snakemake.wildcards.layer
    title = f"{model}, layer {layer}"
    draw(snakemake.wildcards.figure, title, snakemake.input, dict(snakemake.output.items()))
