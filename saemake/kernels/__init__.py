"""Triton kernels of a training step on a GPU. Plain torch code beside `adam` and `top_k`, and
torch's own operations for `masks` and `gates`, say what they must give: tests/unit/test_kernels.py.

Every sum has a fixed order, so a step gives the same bytes each time.
"""

import functools
import importlib.metadata

import torch

from saemake.base.errors import first_line

# Older GPUs have no bfloat16 that Triton compiles to.
LEAST_CAPABILITY = (8, 0)


@functools.cache
def version() -> str | None:
    """Triton's version, None if it is not installed. Torch's CUDA builds bring it along."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def why_not_on(device: torch.device) -> str | None:
    """Why training on this GPU does not use the kernels; None if it does."""
    if version() is None:
        return "Triton is not installed"
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is older than Triton's bfloat16 needs"
    try:
        from saemake.kernels import masks

        row = torch.zeros(1, 16, device=device)
        masks.add_rows_(row, torch.zeros(1, dtype=torch.long, device=device), row.clone())
    except Exception as error:  # of many kinds: no C compiler, no driver that fits, ...
        return f"Triton cannot compile a kernel here ({first_line(error)})"
    return None


def used_on(device: torch.device) -> bool:
    """Whether training on this device uses the kernels."""
    return device.type == "cuda" and why_not_on(device) is None
