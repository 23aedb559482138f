"""The commands of `python -m saemake`, a module each. They look at the working directory's results/
with the config that snakemake would read there."""
