"""Draw a figure of the config's `figures`, as PDF and SVG."""

from saemake.jobs.draw import draw
from saemake.jobs.job import job
from saemake.paths.shown import own

with job(snakemake) as config:
    name = snakemake.wildcards.own_figure
    title = config.figures[name].title or name
    draw(own(config, name), title, snakemake.input, dict(snakemake.output.items()))
