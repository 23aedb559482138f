"""The commands of `saemake`, one module each. They use results/ in the working directory
and the config that snakemake would read there."""
