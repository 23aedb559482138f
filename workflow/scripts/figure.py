"""Draw a figure of a model's suite at one layer, as PDF and SVG."""

from pathlib import Path

from saemake import jobs
from saemake.figures import frontier

with jobs.job(snakemake):
    wildcards = snakemake.wildcards
    rows = frontier.table([Path(path) for path in snakemake.input])
    title = f"{wildcards.model}, layer {wildcards.layer}"
    drawn = frontier.draw(rows, wildcards.figure, title)
    for suffix, path in snakemake.output.items():
        jobs.write(path, frontier.render(drawn, suffix))
