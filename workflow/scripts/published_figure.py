"""Draw a figure of rebuilt and published SAEs of a layer, as PDF and SVG."""

from pathlib import Path

from saemake import jobs
from saemake.figures import frontier, published

with jobs.job(snakemake):
    wildcards = snakemake.wildcards
    rows = published.table([Path(path) for path in snakemake.input])
    title = f"{wildcards.model}, layer {wildcards.layer}"
    drawn = published.draw(rows, wildcards.published_figure, title)
    for suffix, path in snakemake.output.items():
        jobs.write(path, frontier.render(drawn, suffix))
