"""Draw a figure of rebuilt and published SAEs of a layer, as PDF and SVG."""

from saemake.jobs.draw import draw_published
from saemake.jobs.job import job

with job(snakemake):
    wildcards, outputs = snakemake.wildcards, dict(snakemake.output.items())
    title = f"{wildcards.model}, layer {wildcards.layer}"
    draw_published(wildcards.published_figure, title, snakemake.input, outputs)
