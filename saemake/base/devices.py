"""The device that a job computes on, and the settings that make its results reproducible."""

import contextlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from saemake.base import gpus
from saemake.base.errors import SaemakeError, first_line

# Set to 1, a job that finds no GPU ends instead of computing on the CPU.
REQUIRE_GPU = "SAEMAKE_REQUIRE_GPU"


def choose(cpu_threads: int) -> torch.device:
    """The first visible GPU (a job sees only its own: gpus.claim), else the CPU with exactly
    `cpu_threads` threads. The number comes from the recipe and not from the scheduler, because sums
    depend on it. Turns on deterministic algorithms and turns off TF32. Raises SaemakeError if there
    is no GPU and REQUIRE_GPU asks for one.
    """
    if os.environ.get(REQUIRE_GPU) == "1" and not torch.cuda.is_available():
        raise SaemakeError(
            f"torch {torch.__version__} sees no GPU ({_why_no_cuda()}), and {REQUIRE_GPU} is 1:"
            " look at what `nvidia-smi` says, install a build of torch for its driver, or unset the"
            " variable"
        )
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    os.environ.pop("NVIDIA_TF32_OVERRIDE", None)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory costs 5 %. It only helps to find reads of it, and there are none here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(cpu_threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def of_pass(first: torch.device, count: int) -> list[torch.device]:
    """The devices of a pass: so many of the visible GPUs, or the CPU. Raises SaemakeError where
    these are of several kinds, which give an SAE other bytes."""
    if first.type != "cuda":
        return [first]
    found = [torch.device("cuda", place) for place in range(min(count, torch.cuda.device_count()))]
    _check_kind(found, "a pass", "passes.devices_per_pass")
    return found


def of_lm(first: torch.device, count: int, model: str) -> list[torch.device]:
    """The devices of an LM: so many of the visible GPUs, with `first` before the others; or the
    CPU. Raises SaemakeError where fewer are visible, or they are of several kinds."""
    if first.type != "cuda" or count == 1:
        return [first]
    key, visible = f"models.{model}.lm_devices", torch.cuda.device_count()
    if visible < count:
        raise SaemakeError(gpus.too_few(f"the LM '{model}'", count, visible, key))
    own = first.index or 0
    in_order = [own, *(place for place in range(visible) if place != own)]
    found = [torch.device("cuda", place) for place in in_order[:count]]
    _check_kind(found, f"the LM '{model}'", key)
    return found


def _check_kind(found: Sequence[torch.device], whose: str, key: str) -> None:
    kinds = dict.fromkeys(map(describe, found)) if len(found) > 1 else {}
    if len(kinds) > 1:
        raise SaemakeError(
            f"the GPUs of {whose} are of several kinds ({'; '.join(kinds)}): let {gpus.VISIBLE}"
            f" name GPUs of one kind, or set {key} to 1"
        )


def computing_on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Within it kernels that do not say where run on this GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def unused_gpu() -> str | None:
    """A line for a machine that has a GPU which torch cannot use: a driver that is too old, a build
    of torch for CPUs. None if there is none, if torch uses it, or if CUDA_VISIBLE_DEVICES hides
    it."""
    if torch.cuda.is_available() or not gpus.on_machine():
        return None
    return (
        f"this machine has a GPU, and torch {torch.__version__} cannot use it ({_why_no_cuda()}):"
        f" computing on the CPU; with {REQUIRE_GPU}=1 the job ends instead"
    )


def _why_no_cuda() -> str:
    """What torch says where it is asked for CUDA that it cannot have."""
    with warnings.catch_warnings(record=True):
        try:
            torch.cuda.init()
        except Exception as error:  # AssertionError of a build for CPUs, else RuntimeError
            return first_line(error)
    return "no device is visible"


def describe(device: torch.device) -> str:
    """The kind of device, as provenance and logs name it: a GPU's name and its CUDA version, or the
    CPU's widest instruction set. The instruction set decides how sums are rounded."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
