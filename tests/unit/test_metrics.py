import pytest
import torch

from saemake.evaluation.metrics import Mean, SaeMetrics, Variance, loss_recovered


def test_loss_recovered_of_nothing_lost_is_one_and_of_zeros_is_zero():
    assert loss_recovered(2.0, 2.0, 5.0) == 1
    assert loss_recovered(2.0, 5.0, 5.0) == 0
    assert loss_recovered(2.0, 3.5, 5.0) == 0.5


def test_mean_weighs_values_not_batches():
    mean = Mean()
    mean.add(torch.tensor([1.0, 1.0, 1.0]))
    mean.add(torch.tensor([5.0]))
    assert mean.value == 2


def test_variance_in_parts_is_the_variance_of_the_whole():
    vectors = torch.randn(100, 5) + 10
    parts = Variance(5, torch.device("cpu"))
    for part in vectors.split(33):
        parts.add(part)
    assert parts.value == pytest.approx(vectors.double().var(dim=0, correction=0).sum().item())


def test_figures_by_hand():
    metrics = SaeMetrics(1, 4, torch.device("cpu"))
    x = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
    f = torch.tensor([[1.0, 0, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    metrics.add(x, f, x - torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]))
    metrics.loss.add(torch.tensor([3.0, 4.0]))
    assert metrics.results(clean=3.0, ablated=5.0, variance=5.0) == {
        "l0": 1.0,
        "loss_recovered": pytest.approx(0.75),
        "ce_clean": 3.0,
        "ce_sae": 3.5,
        "ce_ablated": 5.0,
        "frac_variance_explained": pytest.approx(1 - 1 / 5),
        "frac_alive": 0.5,
    }
