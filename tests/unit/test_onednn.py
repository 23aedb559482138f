"""Linear layers through oneDNN against torch's own."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from saemake.base import onednn


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def multiplied(monkeypatch):
    """Counts oneDNN's products."""
    counts = []
    own = onednn._multiply
    monkeypatch.setattr(onednn, "_multiply", lambda *given: counts.append(1) or own(*given))
    return counts


@pytest.mark.parametrize("shape", [(24,), (0, 24), (1, 24), (130, 24), (3, 5, 24)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("together", [True, False], ids=["rows", "columns"])
def test_a_product_is_torchs(shape, biased, together, multiplied):
    x, bias = drawn(*shape), drawn(40, seed=1) if biased else None
    weight = drawn(40, 24, seed=2) if together else drawn(24, 40, seed=2).T
    found = onednn.linear(x, weight, bias)
    torch.testing.assert_close(found, functional.linear(x, weight, bias))
    assert multiplied


def test_a_gradient_is_torchs_to_compute(multiplied):
    weight = drawn(40, 24).requires_grad_()
    onednn.linear(drawn(3, 24), weight, None).sum().backward()
    torch.testing.assert_close(weight.grad, drawn(3, 24).sum(dim=0).expand(40, 24))
    assert not multiplied
    with torch.no_grad():
        onednn.linear(drawn(3, 24), weight, None)
    assert multiplied


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_torchs_own(dtype, multiplied):
    x, weight = drawn(3, 24).to(dtype), drawn(40, 24).to(dtype)
    assert onednn.linear(x, weight, None).equal(functional.linear(x, weight))
    assert not multiplied


def test_a_model_is_packed_where_its_layers_are_plain_float32_ones(multiplied):
    class Odd(nn.Linear):
        pass

    model = nn.Sequential(
        nn.Linear(24, 40), nn.ModuleDict({"inner": nn.Linear(40, 8, bias=False)}), Odd(8, 8)
    ).requires_grad_(False)
    model.append(nn.Linear(8, 8, dtype=torch.bfloat16).requires_grad_(False))
    first, inner = model[0], model[1]["inner"]
    x = drawn(5, 24)
    expected = inner(first(x))
    onednn.pack(model)
    torch.testing.assert_close(model[1]["inner"](model[0](x)), expected)
    assert len(multiplied) == 2
    assert [type(one) for one in model] == [onednn.Packed, nn.ModuleDict, Odd, nn.Linear]


def test_without_onednn_nothing_is_packed(multiplied):
    model = nn.Sequential(nn.Linear(24, 40)).requires_grad_(False)
    with torch.backends.mkldnn.flags(enabled=False):
        onednn.pack(model)
        onednn.linear(drawn(3, 24), drawn(40, 24), None)
    assert type(model[0]) is nn.Linear
    assert not multiplied


def test_left_out_it_multiplies_nothing_until_it_is_over(multiplied):
    x, weight = drawn(3, 24), drawn(40, 24)
    model = nn.Sequential(nn.Linear(24, 40)).requires_grad_(False)
    with onednn.left_out():
        onednn.pack(model)
        assert onednn.linear(x, weight, None).equal(functional.linear(x, weight))
    assert type(model[0]) is nn.Linear
    assert not multiplied
    onednn.linear(x, weight, None)
    assert multiplied
