"""Linear layers through oneDNN, which is faster than torch's default in float32 on a CPU
(docs/benchmarks.md).

The operator is private to torch: torch.compile puts it in the place of linear layers. The public
`Tensor.to_mkldnn` would copy inputs and outputs. Torch's version is pinned, and tests compare the
results. The operator has no gradient.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

_left_out = contextvars.ContextVar("left_out", default=False)


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Use torch's default products inside the block. They round as in other people's code."""
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)


def serves(weight: Tensor) -> bool:
    """Whether oneDNN multiplies a layer of this weight: in float32 on a CPU, outside `left_out`."""
    mkldnn = torch.backends.mkldnn
    faster = weight.device.type == "cpu" and weight.dtype == torch.float32
    return faster and not _left_out.get() and mkldnn.is_available() and bool(mkldnn.enabled)


def linear(x: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> Tensor:
    """`functional.linear`: x @ weight.T + bias, [..., F], with x [..., D] cast to the weight's
    dtype. Goes through oneDNN if it serves this weight and no gradient is needed."""
    x = x.to(weight_FD.dtype)
    tensors = (tensor for tensor in (x, weight_FD, bias_F) if tensor is not None)
    needs_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if needs_gradient or not serves(weight_FD):
        return functional.linear(x, weight_FD, bias_F)
    return _multiply(x, weight_FD, bias_F)


class Packed(nn.Module):
    """A linear layer without a gradient, with its weight in oneDNN's memory layout."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return _multiply(x, self.weight, self.bias)


def pack(model: nn.Module) -> None:
    """Replace the linear layers of a frozen model that oneDNN serves by `Packed` layers."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and serves(child.weight):
                setattr(parent, name, Packed(child))


def _multiply(x: Tensor, weight: Tensor, bias_F: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias_F, "none", [], "")
