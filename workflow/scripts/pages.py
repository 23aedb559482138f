"""Write the pages of SAEs."""

from saemake.jobs.job import job
from saemake.jobs.pages import draw_pages

with job(snakemake) as config:
    draw_pages(config, snakemake.params.trained)
