"""Linear layers through oneDNN. In float32 on a CPU it multiplies faster than what torch takes
there (docs/benchmarks.md).

The operator is the one that torch.compile puts in a linear layer's place. It is torch's own, not
its public interface (torch's version is pinned, tests compare), whose way to oneDNN,
`Tensor.to_mkldnn`, copies what goes in and what comes out. It has no gradient.
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
    """Within it torch's own products are taken, whose rounding others' code has too."""
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)


def serves(weight: Tensor) -> bool:
    """Whether a layer of this weight is oneDNN's to multiply."""
    mkldnn = torch.backends.mkldnn
    wanted = weight.device.type == "cpu" and weight.dtype == torch.float32
    return wanted and not _left_out.get() and mkldnn.is_available() and bool(mkldnn.enabled)


def linear(x: Tensor, weight_FD: Tensor, bias_F: Tensor | None) -> Tensor:
    """`functional.linear`: x [..., D], cast to the weight's dtype, @ weight.T + bias, [..., F];
    through oneDNN where it serves and no gradient is asked for."""
    x = x.to(weight_FD.dtype)
    taking_part = (one for one in (x, weight_FD, bias_F) if one is not None)
    graph = torch.is_grad_enabled() and any(one.requires_grad for one in taking_part)
    if graph or not serves(weight_FD):
        return functional.linear(x, weight_FD, bias_F)
    return _multiply(x, weight_FD, bias_F)


class Packed(nn.Module):
    """A linear layer without a gradient that holds its weight in oneDNN's own order."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return _multiply(x, self.weight, self.bias)


def pack(model: nn.Module) -> None:
    """Put `Packed` in the place of a frozen model's linear layers, where oneDNN serves."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and serves(child.weight):
                setattr(parent, name, Packed(child))


def _multiply(x: Tensor, weight: Tensor, bias_F: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias_F, "none", [], "")
