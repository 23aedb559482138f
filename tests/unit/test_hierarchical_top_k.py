"""HierarchicalTopK: its loss by hand and against flexsae's formula, written down plainly; and one
SAE judged with several k."""

import json

import pytest
import torch
from conftest import CONFIG_FILE, PROJECT, SMALL, merged, raw_config
from unit.test_architectures import data, forward_of, make

import saemake
from saemake.architectures import products
from saemake.architectures.hierarchical_top_k import HierarchicalTopK
from saemake.architectures.hierarchical_top_k.trainer import NestedError
from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.figures import drawing, get
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import SaeName, Sweep
from saemake.recipes.judging import sae_evaluation_recipe, sae_evaluation_recipes
from saemake.recipes.training import sae_recipe


def test_the_errors_of_every_k_by_hand():
    """One token: (3, 1) from a bias of (1, 0) by 2 of (1, 0), then by 1 of (0, 2)."""
    f = torch.tensor([[2.0, 1.0]], requires_grad=True)
    rows = torch.tensor([[0.0, 2.0], [1.0, 0.0]], requires_grad=True)
    bias = torch.tensor([1.0, 0.0], requires_grad=True)
    target, latents = torch.tensor([[3.0, 1.0]]), torch.tensor([[1, 0]])
    mean, errors, x_hat = NestedError.apply(f, rows, bias, latents, target)
    assert errors.tolist() == [1, 1]  # (3, 0) and (3, 2) for (3, 1)
    assert x_hat.tolist() == [[3, 2]]
    assert mean == 1
    mean.backward()
    # Half of twice (0, -1), of twice (0, 1): together nothing for the first latent and the bias.
    assert f.grad.tolist() == [[0, 2]]
    assert rows.grad.tolist() == [[0, 1], [0, 0]]
    assert bias.grad.tolist() == [0, 0]


def flexsae_loss(trainer, x):
    """`hierarchical_sae_loss` of corl-team/flexsae, summed over D where it takes the mean."""
    d = trainer.dictionary
    before = ((x - d.b_dec) @ d.encoder.weight.T + d.encoder.bias).relu()
    values, latents = before.topk(d.k, dim=1)
    x_hats = d.b_dec + (d.decoder.weight.T[latents] * values[..., None]).cumsum(dim=1)
    return (x_hats - x[:, None]).pow(2).sum(-1).mean()


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("rows_bytes", [2**22, 1])
def test_loss_and_gradients_are_flexsaes(k, rows_bytes, monkeypatch):
    """Few latents are listed, many are masked; tokens in one part, or each by itself."""
    monkeypatch.setitem(products.ROWS_BYTES, "cpu", rows_bytes)
    trainer = make("hierarchical_top_k")
    trainer.dictionary.k = k
    x = next(data(1))
    trainer.start(x, x)
    expected = flexsae_loss(trainer, x)
    parameters = dict(trainer.dictionary.named_parameters())
    gradients = torch.autograd.grad(expected, list(parameters.values()))
    forward = forward_of(trainer, x, step=0)
    forward.loss.backward()
    torch.testing.assert_close(forward.loss, expected)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_any_smaller_k_keeps_the_largest():
    dictionary = make("hierarchical_top_k").dictionary.requires_grad_(False)
    assert dictionary.inference == "k_3"
    x = next(data(1)) + 0.1
    whole = dictionary.encode(x)
    dictionary.inference = "k_1"
    one = dictionary.encode(x)
    assert (one.count_nonzero(dim=1) == 1).all()
    assert one.max(dim=1).values.equal(whole.max(dim=1).values)


def test_the_ways_of_an_sae_are_every_k_and_the_judged_ones_those_of_the_config():
    assert HierarchicalTopK.inferences_of({"k": 3}) == ("k_3", "k_2", "k_1")
    settings = HierarchicalTopK.Settings(**{**HierarchicalTopK.example, "inference_k": [2, 8, 4]})
    assert HierarchicalTopK.judged_inferences(settings, 8) == ("k_8", "k_4", "k_2")
    assert HierarchicalTopK.judged_inferences(settings, 2) == ("k_2",)


def recipes(inference_k):
    own = {
        "models": {"demo": {"architectures": {"hierarchical_top_k": {"inference_k": inference_k}}}}
    }
    config = read(raw_config(merged(own, SMALL)), PROJECT, [CONFIG_FILE])
    name = SaeName(Sweep("demo", Hookpoint(3), "hierarchical_top_k", "256"), 16)
    return sae_recipe(config, name), sae_evaluation_recipe(config, name, "sae_bench_core")


def test_what_it_is_judged_with_is_in_the_evaluations_recipe_alone():
    (sae, few), (same, more) = recipes([2]), recipes([2, 8])
    assert sae.hash == same.hash
    assert few.inferences == ["k_16", "k_2"]
    assert more.inferences == ["k_16", "k_8", "k_2"]
    assert few.hash != more.hash


def test_sae_bench_judges_its_own_k_and_the_rows_meet():
    config = read(raw_config(SMALL), PROJECT, [CONFIG_FILE])
    name = SaeName(Sweep("demo", Hookpoint(3), "hierarchical_top_k", "256"), 16)
    (by_sae_bench,) = sae_evaluation_recipes(config, name, "sae_bench_tpp")
    assert by_sae_bench.inferences == ["k_16"]
    (on_text,) = sae_evaluation_recipes(config, name, "dictionary_learning")
    assert on_text.inferences == ["k_16", "k_8", "k_2"]


@pytest.mark.parametrize(
    ("values", "message"), [([2, 2], "more than once"), ([0], "greater"), (["x"], "integer")]
)
def test_what_is_no_k_is_refused(values, message):
    with pytest.raises((SaemakeError, ValueError), match=message):
        recipes(values)


def rows_of(k, inferences):
    return [
        {
            "name": f"demo/L3/hierarchical_top_k/1k/k_{k}",
            "architecture": "hierarchical_top_k",
            "width": "1k",
            "latents": 1024,
            "sparsity": f"k_{k}",
            "tokens": 1000,
            "inference": f"k_{at}",
            "dictionary_learning": {"l0": at, "frac_recovered": 1 - 1 / at - 1 / k},
        }
        for at in inferences
    ]


def test_a_frontier_has_a_line_through_all_k_of_an_sae(tmp_path):
    """Two SAEs of several k are two lines of one colour; of other figures each is one row."""
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps([*rows_of(16, [16, 8, 2]), *rows_of(4, [4, 2])]))
    figure = get("loss_recovered_vs_l0")
    table = drawing.table(figure, [path])
    assert len(table) == 5
    drawn = drawing.draw(figure, table, "title")
    lines = [line for line in drawn.axes[0].lines if len(line.get_xdata()) > 1]
    assert sorted(list(line.get_xdata()) for line in lines) == [[2, 4], [2, 8, 16]]
    assert len({line.get_color() for line in lines}) == 1
    assert drawn.get_suptitle().endswith("2 SAEs of width 1k, trained on 1k tokens")
    assert len(drawing.table(get("dead_latents_vs_l0"), [path])) == 5
    assert len(drawing.table(get("loss_recovered_vs_tokens"), [path])) == 2


def test_an_inference_that_is_none_of_an_sae_is_told_which_there_are(tmp_path):
    from unit.test_loading import write

    write(tmp_path / "sae", "hierarchical_top_k")
    assert saemake.load(tmp_path / "sae", inference="k_2").kept == 2
    with pytest.raises(SaemakeError, match=r"no inference 'k_9'.*has k_3 and k_2 and k_1"):
        saemake.load(tmp_path / "sae", inference="k_9")
