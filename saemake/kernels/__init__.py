"""Triton kernels of a training step on a GPU, each beside the plain torch code that it must agree
with. Every sum has a fixed order, so a step gives the same bytes each time.

A kernel's program handles whole rows. So what it computes of a row does not depend on other rows.
"""

import functools
import importlib.metadata

import torch


@functools.cache
def version() -> str | None:
    """Triton's version, None if it is not installed. Torch's CUDA builds bring it along."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return None


def used_on(device: torch.device) -> bool:
    """Whether training on this device uses the kernels."""
    return device.type == "cuda" and version() is not None
