"""Places chosen and computed with, listed and masked, against plain dense autograd."""

import pytest
import torch

from saemake.architectures import choosing, losses, places, products
from saemake.architectures.encoding import Encoding
from saemake.architectures.places import Listed, Masked

TOKENS, D_MODEL, WIDTH = 12, 8, 64
CPU = torch.device("cpu")


@pytest.fixture(params=["listed", "masked"])
def kind(request, monkeypatch):
    """Which kind is chosen, whatever pays; of a batch cut into parts of five tokens."""
    monkeypatch.setattr(products, "PART_BYTES", 1)
    monkeypatch.setattr(products, "PART_TOKENS", 5)
    monkeypatch.setattr(places, "LISTED_OF", dict.fromkeys(places.LISTED_OF, 1))
    if request.param == "listed":
        return Listed
    monkeypatch.setattr(Encoding, "lists", lambda *_: False)
    return Masked


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of(all_BF):
    """An encoding whose numbers these are."""
    return Encoding(all_BF, torch.eye(all_BF.shape[1]), None, None, all_BF.dtype)


def dense(chosen, values_P):
    """[B, F], 0 where there is no place."""
    if isinstance(chosen, Masked):
        return values_P
    zeros = torch.zeros(chosen.tokens, chosen.width)
    return zeros.index_put((chosen.tokens_N, chosen.latents_N), values_P)


def where(chosen):
    """The mask [B, F] of the places."""
    if isinstance(chosen, Masked):
        return chosen.mask_BF
    return dense(chosen, torch.ones(len(chosen.latents_N))) > 0


@pytest.mark.parametrize("k", [1, 5, 30])
@pytest.mark.parametrize("width", [WIDTH, 48, 63])
def test_top_of_each_is_topk(kind, k, width):
    all_BF = drawn(TOKENS, width)
    chosen, values_P = choosing.top_of_each(of(all_BF), k)
    assert isinstance(chosen, kind)
    mask_BF = torch.zeros(TOKENS, width).scatter(1, all_BF.topk(k).indices, 1) > 0
    assert where(chosen).equal(mask_BF)
    assert dense(chosen, values_P).equal(all_BF.where(mask_BF, 0))


@pytest.mark.parametrize("count", [1, 17, 300])
def test_top_of_batch_is_topk_of_all(kind, count):
    all_BF = drawn(TOKENS, WIDTH)
    chosen, values_P = choosing.top_of_batch(of(all_BF), count)
    assert isinstance(chosen, kind)
    mask_BF = all_BF >= all_BF.flatten().topk(count).values[-1]
    assert where(chosen).equal(mask_BF)
    assert dense(chosen, values_P).equal(all_BF.where(mask_BF, 0))


@pytest.mark.parametrize("louder", [0.01, 1.0, 100.0])
def test_top_of_batch_is_exact_where_the_guess_fails(kind, louder):
    """The bound is guessed from the first five tokens, which are quieter or louder than others."""
    all_BF = drawn(TOKENS, WIDTH)
    all_BF[:5] *= louder
    chosen, _ = choosing.top_of_batch(of(all_BF), 40)
    assert where(chosen).equal(all_BF >= all_BF.flatten().topk(40).values[-1])


def test_equal_values_are_chosen_as_often_as_asked(kind):
    chosen, _ = choosing.top_of_each(of(torch.ones(TOKENS, WIDTH)), 7)
    assert where(chosen).sum(dim=1).tolist() == [7] * TOKENS
    chosen, _ = choosing.top_of_batch(of(torch.ones(TOKENS, WIDTH)), 70)
    assert where(chosen).sum() == 70


@pytest.mark.parametrize("width", [WIDTH, 63])
@pytest.mark.parametrize("at_least", [0.0, 1.5, 99.0])
def test_over_compares_each_latent_with_its_own_bound(kind, width, at_least):
    all_BF, bound_F = drawn(TOKENS, width), at_least + drawn(width, seed=1).abs()
    chosen, values_P = choosing.over(of(all_BF), bound_F)
    assert isinstance(chosen, kind)
    assert where(chosen).equal(all_BF > bound_F)
    assert dense(chosen, values_P).equal(all_BF.where(all_BF > bound_F, 0))


def test_lists_are_for_cpus_and_few(monkeypatch):
    monkeypatch.setattr(places, "LISTED_OF", {torch.float32: 10})
    few = of(torch.ones(10, 10).tril(-9))  # one of a hundred
    assert isinstance(choosing.over(few, torch.zeros(10))[0], Listed)
    assert isinstance(choosing.over(of(torch.ones(10, 10)), torch.zeros(10))[0], Masked)
    assert few.lists(10)
    assert not few.lists(11)
    few.device = torch.device("meta")
    assert not few.lists(1)
    assert not few.lists(0)


def test_sums(kind):
    all_BF = drawn(TOKENS, WIDTH)
    chosen, values_P = choosing.over(of(all_BF), torch.ones(WIDTH))
    kept_BF = all_BF.where(all_BF > 1, 0)
    torch.testing.assert_close(dense(chosen, values_P), kept_BF)
    torch.testing.assert_close(chosen.by_latent(values_P), kept_BF.sum(dim=0))
    torch.testing.assert_close(chosen.by_token(values_P), kept_BF.sum(dim=1))
    least_B = all_BF.where(all_BF > 1, torch.inf).amin(dim=1)
    torch.testing.assert_close(chosen.least_by_token(values_P), least_B)
    assert chosen.latents().equal((all_BF > 1).any(dim=0))
    assert chosen.count().equal((all_BF > 1).sum(dim=0).float())
    assert chosen.count(values_P < 1.5).equal(((all_BF > 1) & (all_BF < 1.5)).sum(dim=0).float())


def parameters():
    shapes = ((WIDTH, D_MODEL), (WIDTH,), (D_MODEL,), (WIDTH, D_MODEL))
    return [drawn(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes, 1)]


def gradients(loss, of):
    return torch.autograd.grad(loss, of)


def test_a_step_has_the_gradients_of_plain_autograd(kind):
    x_BD = drawn(TOKENS, D_MODEL)
    weight_FD, bias_F, shift_D, rows_FD = wanted = parameters()
    f_BF = torch.relu((x_BD - shift_D) @ weight_FD.T + bias_F)
    plain = (f_BF @ rows_FD).square().sum() + f_BF.sum()
    expected = gradients(plain, wanted)

    encoded = Encoding(x_BD, weight_FD, bias_F, shift_D, torch.float32)
    chosen, f_P = choosing.over(encoded, torch.zeros(WIDTH))
    assert isinstance(chosen, kind)
    loss = chosen.decode(f_P, rows_FD).square().sum() + f_P.sum()
    torch.testing.assert_close(loss, plain)
    for found, gradient in zip(gradients(loss, wanted), expected, strict=True):
        atol = 1e-6 * gradient.abs().max().item()
        torch.testing.assert_close(found, gradient, rtol=1e-5, atol=atol)
        assert found.stride() == gradient.stride()


def test_groups_decode_as_their_slices(kind):
    all_BF, rows_FD = drawn(TOKENS, WIDTH), drawn(WIDTH, D_MODEL, seed=1).requires_grad_()
    sizes = [8, 16, 40]
    chosen, values_P = choosing.over(of(all_BF), torch.ones(WIDTH))
    dense_BF = all_BF.where(all_BF > 1, 0)
    parts = chosen.split(values_P, sizes)
    for (part, part_P), slice_BG, slice_GD in zip(
        parts, dense_BF.split(sizes, dim=1), rows_FD.split(sizes), strict=True
    ):
        found, expected = part.decode(part_P, slice_GD), slice_BG @ slice_GD
        torch.testing.assert_close(found, expected)
        (one,), (other,) = (gradients(side.square().sum(), [rows_FD]) for side in (found, expected))
        torch.testing.assert_close(one, other)


def test_rows_that_want_no_gradient_get_none(kind):
    all_BF, rows_FD = drawn(TOKENS, WIDTH), drawn(WIDTH, D_MODEL, seed=1)
    chosen, values_P = choosing.top_of_each(of(all_BF), 3)
    values_P.requires_grad_()
    (found,) = gradients(chosen.decode(values_P, rows_FD).sum(), [values_P])
    torch.testing.assert_close(
        dense(chosen, found)[where(chosen)], rows_FD.sum(dim=1).expand(TOKENS, -1)[where(chosen)]
    )


def test_powers_below_one_have_finite_gradients(kind):
    """Where there is no place the gradient of f^p is infinite; nothing of it arrives."""
    x_BD, (weight_FD, bias_F, shift_D, _) = drawn(TOKENS, D_MODEL), parameters()
    encoded = Encoding(x_BD, weight_FD, bias_F, shift_D, torch.float32)
    chosen, f_P = choosing.over(encoded, torch.zeros(WIDTH))
    loss = losses.lp_to_the_p(f_P, chosen, 0.5)
    assert all(g.isfinite().all() for g in gradients(loss, [weight_FD, bias_F, shift_D]))


def test_nothing_chosen_gives_zeros(kind):
    x_BD, (weight_FD, bias_F, shift_D, rows_FD) = drawn(TOKENS, D_MODEL), parameters()
    encoded = Encoding(x_BD, weight_FD, bias_F, shift_D, torch.float32)
    chosen, f_P = choosing.over(encoded, torch.full((WIDTH,), 1e9))
    x_hat_BD = chosen.decode(f_P, rows_FD)
    assert x_hat_BD.equal(torch.zeros(TOKENS, D_MODEL))
    found = gradients(x_hat_BD.square().sum(), [weight_FD, bias_F, shift_D, rows_FD])
    assert not any(g.any() for g in found)


@pytest.mark.parametrize("k", [1, WIDTH])  # each product by itself, or all of them
def test_bfloat16_products_are_float32s_to_their_precision(kind, k):
    x_BD, (weight_FD, bias_F, shift_D, rows_FD) = drawn(TOKENS, D_MODEL), parameters()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        encoded = Encoding(x_BD, weight_FD, bias_F, shift_D, dtype)
        assert encoded.whole().dtype == dtype
        chosen, f_P = choosing.top_of_each(encoded, k)
        loss = chosen.decode(f_P, rows_FD).float().square().mean()
        found.append([loss, *gradients(loss, [weight_FD, bias_F, shift_D, rows_FD])])
    for exact, rounded in zip(*found, strict=True):
        assert rounded.dtype == torch.float32
        scale = exact.abs().max().item()
        torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0.03 * scale)
