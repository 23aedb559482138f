"""Set up what an evaluation of SAE Bench needs for all SAEs of a layer."""

from pathlib import Path

from saemake.jobs.job import job
from saemake.jobs.sae_bench import set_up

with job(snakemake) as config:
    setup, given = snakemake.params.setup, snakemake.input
    set_up(config, setup, Path(given.model), list(map(Path, given.data)), snakemake.output[0])
