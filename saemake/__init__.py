"""saemake: name an SAE, get it. The package behind the workflow; it never sees `snakemake`."""

__version__ = "0.1.0"
