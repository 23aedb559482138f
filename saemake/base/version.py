"""The version of saemake: provenance and cards name it."""

__version__ = "0.1.0"
