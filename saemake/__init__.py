"""saemake: name an SAE, get it. The package behind the workflow; it never sees `snakemake`."""

import os

__version__ = "0.1.0"

# Torch reads it when it first allocates: large tensors then lie in huge pages, which the kernel
# clears in a third of the time (docs/benchmarks.md).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
