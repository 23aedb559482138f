"""CUDA graphs of training steps. A step launches over a hundred kernels, and Python takes longer to
launch them than a GPU to compute them. A graph launches them all at once, with the same bytes.
"""

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from saemake import kernels

Result = TypeVar("Result")


class Numbers:
    """The numbers of a step. On a GPU they lie in one tensor at a fixed place, from which a graph
    reads them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.all: Tensor | None = None
        self.by_name: dict[str, Tensor] = {}
        self.given: Tensor | None = None

    def set(self, optimizer: dict[str, float], schedule: dict[str, float]) -> Mapping[str, Any]:
        """The numbers by name: floats, on a GPU scalars (float32), there also those of the
        optimizer together as "optimizer"."""
        values = {**optimizer, **schedule}
        if self.device.type == "cpu" and not kernels.used_on(self.device):
            return values
        # From pageable memory a small copy is staged at once, so it needs no wait.
        given = torch.tensor(list(values.values()), dtype=torch.float32)
        if self.all is None:
            self.all = torch.empty_like(given, device=self.device)
            self.by_name = dict(zip(values, self.all, strict=True))
            self.by_name["optimizer"] = self.all[: len(optimizer)]
        # Kept, in case the device reads it late.
        self.given = given
        self.all.copy_(given, non_blocking=True)
        return self.by_name


class Replays:
    """Runs the steps of an SAE, and replays them where a graph can. The first step of a phase runs
    as it is: it prepares what a capture needs. The second is captured."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.phase: Hashable = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: tuple[Tensor, Tensor] | None = None
        self.result: Any = None

    def run(
        self,
        phase: Hashable,
        x_BD: Tensor,
        y_BD: Tensor,
        compute: Callable[[Tensor, Tensor], Result],
    ) -> Result:
        """The result of `compute` on the batch [B, D] and its target, which may be the batch."""
        if not self.on:
            return compute(x_BD, y_BD)
        alone = y_BD is x_BD
        key = None if phase is None else (phase, x_BD.shape, x_BD.dtype, alone or y_BD.dtype)
        if key is None or key != self.phase:
            self.phase, self.graph, self.result = key, None, None
            return compute(x_BD, y_BD)
        if self.graph is None:
            self._capture(x_BD, y_BD, compute)
        assert self.graph is not None
        assert self.batch is not None
        self.batch[0].copy_(x_BD)
        if not alone:
            self.batch[1].copy_(y_BD)
        self.graph.replay()
        result: Result = self.result
        return result

    def _capture(
        self, x_BD: Tensor, y_BD: Tensor, compute: Callable[[Tensor, Tensor], Any]
    ) -> None:
        read_BD = x_BD.clone()
        self.batch = read_BD, read_BD if y_BD is x_BD else y_BD.clone()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile (text that is fetched ahead).
        with torch.cuda.graph(graph, pool=_pool(), capture_error_mode="thread_local"):
            self.result = compute(*self.batch)
        self.graph = graph


@functools.cache
def _memory(device: int) -> torch.cuda.MemPool:
    """The memory that all graphs of a GPU share. They never run at the same time, and what a step
    returns is read before the next one."""
    return torch.cuda.MemPool()


def _pool() -> Any:
    return _memory(torch.cuda.current_device()).id
