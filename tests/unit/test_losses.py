import pytest
import torch

from saemake.architectures import losses
from saemake.architectures.places import Listed, Masked


def test_reconstruction_sums_over_the_width_and_averages_over_the_batch():
    x = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    x_hat = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    assert losses.reconstruction(x, x_hat).item() == pytest.approx((5 + 1) / 2)


def test_reconstruction_of_bfloat16_is_computed_in_float32():
    x = torch.full((1, 1), 256.0, dtype=torch.bfloat16)
    assert losses.reconstruction(x, torch.ones(1, 1)).item() == 255.0**2


def test_l1_weighs_each_latent_by_its_decoder_norm():
    f = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    decoder = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    places = Masked(f > 0, f.dtype)
    found = losses.decoder_weighted_l1(f, places, decoder.norm(dim=1))
    assert found.item() == pytest.approx((5 + 4 + 15) / 2)


def test_auxk_over_variance_is_zero_where_the_aux_decodes_the_error():
    x = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    x_hat = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    assert losses.auxk_over_variance(x_hat - x, x_hat, x, 1.0).item() == 0


def test_auxk_over_variance_divides_each_dimension_by_its_own_variance():
    x = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    # Squared errors of zeros against x_hat - x = -x: 1, 9 and 0, 16; over 2 and over 8.
    assert losses.auxk_over_variance(
        torch.zeros(2, 2), torch.zeros(2, 2), x, 1.0
    ).item() == pytest.approx((1 / 2 + 9 / 2 + 0 / 8 + 16 / 8) / 4)


def test_auxk_mean_squared_lets_the_gradient_through_the_residual():
    x_hat = torch.zeros(1, 2, requires_grad=True)
    loss = losses.auxk_mean_squared(torch.zeros(1, 2), x_hat, torch.tensor([[2.0, 4.0]]))
    assert loss.item() == pytest.approx((4 + 16) / 2)
    loss.backward()
    assert x_hat.grad.tolist() == [[-2.0, -4.0]]


def test_auxk_over_residual_compares_with_the_spread_of_the_detached_residual():
    x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    x_hat = torch.zeros(2, 2, requires_grad=True)
    aux = torch.tensor([[1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    # Residuals (2, 0) and (0, 4): errors 1 and 16; around their mean (1, 2): 1 + 4 each.
    loss = losses.auxk_over_residual(aux, x_hat, x)
    assert loss.item() == pytest.approx((1 + 16) / 2 / 5)
    loss.backward()
    assert x_hat.grad is None
    assert aux.grad[0].tolist() == pytest.approx([2 * (1 - 2) / 2 / 5, 0])


def test_auxk_over_residual_is_zero_where_the_residual_is():
    zeros = torch.zeros(2, 2)
    assert losses.auxk_over_residual(zeros, torch.ones(2, 2), torch.ones(2, 2)).item() == 0


def test_l1_and_lp_by_hand():
    f = torch.tensor([[4.0, 9.0, 0.0], [1.0, 0.0, 0.0]])
    listed = Listed(torch.tensor([0, 1, 0]), torch.tensor([0, 2]), 3, torch.float32)
    for places, f_P in ((Masked(f > 0, f.dtype), f), (listed, f[f > 0])):
        assert losses.l1(f_P, places).item() == pytest.approx((13 + 1) / 2)
        assert losses.lp_to_the_p(f_P, places, 0.5).item() == pytest.approx((2 + 3 + 1) / 2)
        assert losses.lp(f_P, places, 0.5).item() == pytest.approx((5**2 + 1) / 2)
        of_p_1 = losses.lp_to_the_p(f_P, places, 1.0), losses.lp(f_P, places, 1.0)
        assert of_p_1 == (losses.l1(f_P, places),) * 2


def test_geometric_median_is_not_moved_by_an_outlier():
    points = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [100.0, 0.0]])
    assert losses.geometric_median(points).norm() < 0.1


def test_geometric_median_of_a_square_is_its_centre():
    points = torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]])
    assert losses.geometric_median(points).tolist() == pytest.approx([1, 1])
