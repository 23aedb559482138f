"""Stand-ins for GPUs on a machine without one.

Tensors of torch's FakeTensorMode say that they are on a GPU and have no values. An operation on
tensors of two GPUs fails as on real ones. Torch's own indexing and `contiguous` ask CUDA for the
GPU, so `WithoutCuda` computes both by operators that do not. It also takes every comparison for
true, since there are no values to compare.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten


class WithoutCuda(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__:
            return _at(*args)
        if func is Tensor.__setitem__:  # a copy, which torch makes between devices too
            return None
        if func is Tensor.__bool__:
            return True
        if func is Tensor.contiguous:
            return aten.clone(args[0], memory_format=torch.contiguous_format)
        return func(*args, **(kwargs or {}))


def _at(x: Tensor, index: Any) -> Tensor:
    """x[index]"""
    index = list(index) if isinstance(index, tuple) else [index]
    dots = [place for place, part in enumerate(index) if part is Ellipsis]
    for place in dots:
        named = sum(part is not None and part is not Ellipsis for part in index)
        index[place : place + 1] = [slice(None)] * (x.dim() - named)
    dim, listed = 0, {}
    for part in index:
        if part is None:
            x = x.unsqueeze(dim)
        elif isinstance(part, slice):
            x = aten.slice(x, dim, part.start, part.stop, part.step or 1)
        elif isinstance(part, Tensor):
            listed[dim] = part
        elif isinstance(part, list):
            x = aten.index_select(x, dim, torch.tensor(part, device=x.device))
        else:
            x = x.select(dim, part)
            continue
        dim += 1
    if not listed:
        return x
    return aten.index(x, [listed.get(place) for place in range(max(listed) + 1)])
