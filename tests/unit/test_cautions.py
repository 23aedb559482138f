"""What metrics.json warns of, and what is told once on the screen."""

import math

import pytest
import torch
from conftest import CONFIG_FILE, PROJECT, merged, raw_config
from unit.test_evaluation import recipe

from saemake.activations.norms import Norms, largest_share, warned
from saemake.config.checks import read
from saemake.evaluation.dictionary_learning import DictionaryLearningFigures
from saemake.evaluation.sae_bench_core import SaeBenchCoreFigures
from saemake.metrics import cautions, rows
from saemake.recipes.kinds import EvaluationRecipe


def measured(*batches):
    passing = Norms(iter([torch.tensor(norms)[:, None] for norms in batches]))
    assert [batch.flatten().tolist() for batch in passing] == [list(norms) for norms in batches]
    return passing.measured()


def test_the_share_is_of_the_largest_hundredth_rounded_up():
    assert largest_share(torch.tensor([3.0, 4.0])) == pytest.approx(16 / 25)
    norm_N = torch.cat([torch.ones(199), torch.tensor([10.0])])
    assert largest_share(norm_N) == pytest.approx((100 + 1) / 299)
    assert largest_share(torch.zeros(3)) == 0


def test_activations_of_like_norm_warn_of_nothing():
    found = measured([1.0] * 100, [2.0] * 100)
    assert found == {"squared_norm_of_largest_1_percent": pytest.approx(8 / 500)}
    assert warned(found) == []
    assert warned({}) == []  # an SAE from before it was measured


@pytest.mark.parametrize(("outlier", "advised"), [(100.0, 10.0), (7.0, 5.0), (4.0, None)])
def test_few_that_outweigh_the_others_are_told_with_the_key_to_set(outlier, advised):
    ordinary, few = [1.0] * 99, [outlier]
    found = measured(ordinary + few, ordinary + few)
    share = outlier**2 / (outlier**2 + 99)
    if share <= 0.2:
        assert warned(found) == []
        return
    assert found["squared_norm_of_largest_1_percent"] == pytest.approx(share)
    assert found["norm_over_median_for_it"] == advised
    (line,) = warned(found)
    assert f"the largest 1 % of the activations have {share:.1%} of the squared norm" in line
    assert f"training.drop leaves them out (norm_over_median: {advised:g}, or bos: true" in line


def test_no_multiple_is_advised_where_none_helps():
    found = measured([1.0] * 9 + [4.0])
    assert found == {"squared_norm_of_largest_1_percent": pytest.approx(16 / 25)}
    (line,) = warned(found)
    assert "(bos: true where they are at BOS)" in line


DL = {"frac_recovered": 0.5, "frac_variance_explained": 0.7, "l0": 20.0}
DL |= {"loss_original": 3.0, "loss_zero": 10.0}


def said(evaluation_recipe, **ways):
    found = cautions.of_figures(evaluation_recipe, {key or None: v for key, v in ways.items()})
    return dict(zip(ways, found, strict=True))


def test_sound_figures_warn_of_nothing():
    assert said(recipe(), top_k=DL, threshold=DL) == {"top_k": [], "threshold": []}


@pytest.mark.parametrize("zero", [3.0, 2.9, 3.02])
def test_a_zero_ablation_that_costs_nothing_is_told(zero):
    (line,) = said(recipe(), top_k=DL | {"loss_zero": zero})["top_k"]
    assert line == (
        "dictionary_learning: frac_recovered means nothing: the LM's loss without the layer is"
        f" {zero:.4g}, not over 1% above its own 3"
    )


def test_so_it_is_by_cores_figures():
    core = {"ce_loss_score": 1.05, "explained_variance": 0.7, "l0": 20.0}
    core |= {"ce_loss_without_sae": 10.83, "ce_loss_with_ablation": 10.82}
    (line,) = said(recipe("sae_bench_core"), top_k=core)["top_k"]
    assert line.startswith("sae_bench_core: ce_loss_score means nothing")


def test_a_threshold_far_from_top_k_is_told_with_the_figures():
    far = DL | {"frac_variance_explained": -4.6, "l0": 31.0}
    found = said(recipe(), top_k=DL, threshold=far)
    assert found["top_k"] == []
    (line,) = found["threshold"]
    assert "by threshold frac_variance_explained is -4.6 at L0 31, by top_k 0.7 at L0 20" in line
    near = DL | {"frac_variance_explained": 0.61, "l0": 29.0}
    assert said(recipe(), top_k=DL, threshold=near)["threshold"] == []
    for l0 in (13.0, 31.0):
        assert said(recipe(), top_k=DL, threshold=near | {"l0": l0})["threshold"]


def test_a_missed_target_is_told_as_ever():
    asked = EvaluationRecipe(**{**recipe().model_dump(), "target_l0": 20.0})
    (line,) = said(asked, threshold=DL | {"l0": 416.0})["threshold"]
    assert "L0 416 is 1980% over the target 20" in line


def test_figures_that_are_no_numbers_warn_of_nothing():
    assert said(recipe(), top_k=dict.fromkeys(DL)) == {"top_k": []}


# Beside PCA


def row(name, *, l0, recovered, latents=1024, width="1k", core=None, warnings=()):
    figures = dict.fromkeys(DictionaryLearningFigures.model_fields)
    content = {
        "name": name,
        "model": "demo",
        "layer": 3,
        "architecture": name.split("/")[0],
        "width": width,
        "latents": latents,
        "sparsity": None,
        "steps": None,
        "tokens": None,
        "inference": None,
        "dictionary_learning": figures | {"l0": l0, "frac_recovered": recovered},
        "warnings": list(warnings),
        "evaluations": {},
    }
    if core is not None:
        names = SaeBenchCoreFigures.model_fields
        content["sae_bench_core"] = {
            **{key: 0 if key.startswith("total") else None for key in names},
            "l0": l0,
            "ce_loss_score": core,
        }
    return rows.row_type().model_validate(content)


def pca(k, recovered, core=None):
    return row(f"pca/k_{k}", l0=k, recovered=recovered, latents=k, width=None, core=core)


PCA = [pca(20, 0.6, 0.5), pca(40, 0.8, 0.7), pca(128, 1.0, 0.9)]


def warnings(*saes):
    table = cautions.beside_pca([*saes, *PCA])
    assert [found.warnings for found in table[len(saes) :]] == [[]] * 3
    return [found.warnings for found in table[: len(saes)]]


def test_an_sae_below_pca_at_its_l0_is_told():
    # 30 components recover 0.7, on the straight line from 20 to 40; 84 of them 0.9.
    below = row("top_k/k_30", l0=30.0, recovered=0.69, warnings=["another"])
    above = row("top_k/k_31", l0=30.0, recovered=0.71)
    far = row("jump_relu/l0_20", l0=84.0, recovered=0.85)
    found = warnings(below, above, far)
    assert found[0] == [
        "another",
        "dictionary_learning: frac_recovered 0.69 is below the 0.7 of 30 principal components, as"
        " many as its L0",
    ]
    assert found[1] == []
    assert "0.85 is below the 0.9 of 84" in found[2][0]


def test_each_evaluation_is_compared_with_its_own():
    sae = row("top_k/k_20", l0=20.0, recovered=0.9, core=0.4)
    ((line,),) = warnings(sae)
    assert line.startswith("sae_bench_core: ce_loss_score 0.4 is below the 0.5 of 20")


def test_an_l0_just_below_the_fewest_components_is_compared_with_their_part():
    ((line,),) = warnings(row("batch_top_k/k_20", l0=19.0, recovered=0.54))
    assert line.startswith("dictionary_learning: frac_recovered 0.54 is below the 0.57 of 19")
    assert warnings(row("batch_top_k/k_20", l0=19.0, recovered=0.58)) == [[]]


@pytest.mark.parametrize("l0", [15.9, 500.0, None])
def test_an_l0_that_no_components_were_judged_at_is_not_compared(l0):
    assert warnings(row("top_k/k_10", l0=l0, recovered=0.0)) == [[]]


# Trained without, judged with


def of_drops(training, **evaluations):
    over = merged(
        {"training": {"drop": training}},
        {"evaluations": {name: {"drop": drop} for name, drop in evaluations.items()}},
    )
    config = read(raw_config(over), PROJECT, [CONFIG_FILE])
    return [
        name
        for name in ("dictionary_learning", "sae_bench_core")
        if cautions.not_dropped(config, "demo", name)
    ]


def test_figures_of_positions_that_were_left_out_of_training_are_told():
    bos, norm = {"bos": True}, {"norm_over_median": 10}
    assert of_drops({}) == []
    assert of_drops(bos) == ["dictionary_learning"]  # core leaves BOS out by itself
    assert of_drops(bos, dictionary_learning=bos) == []
    assert of_drops(bos, dictionary_learning={"special": True}) == []
    assert of_drops(norm) == ["dictionary_learning", "sae_bench_core"]
    assert of_drops(norm, sae_bench_core=norm) == ["dictionary_learning"]


# On the screen


def test_one_line_a_sweep_tells_how_many_saes_have_warnings():
    quiet = row("demo/L3/top_k/1k/k_0", l0=1, recovered=1)
    first, second, third = (
        row(f"demo/L3/top_k/1k/k_{k}", l0=1, recovered=1, warnings=["bad", "worse"])
        for k in (1, 2, 3)
    )
    assert cautions.told([quiet]) is None
    assert cautions.told([quiet, first, first]) == (
        "demo/L3/top_k/1k/k_1 has warnings (see metrics.json)"
    )
    assert cautions.told([quiet, first, second]) == (
        "demo/L3/top_k/1k: 2 SAEs have warnings (see metrics.json)"
    )
    # Those of the sweep's table: what was told before is not told again.
    assert cautions.told([first, second], before=[first, second]) is None
    assert cautions.told([first, second], before=[first]) == (
        "demo/L3/top_k/1k: 1 more SAE has warnings (see metrics.json)"
    )
    assert cautions.told([first, second, third], before=[quiet, first]) == (
        "demo/L3/top_k/1k: 2 more SAEs have warnings (see metrics.json)"
    )


def test_what_training_has_printed_is_not_told_and_baselines_have_no_line():
    trained = row("a/k_1", l0=1, recovered=1, warnings=["training: bad"])
    baseline = PCA[0].model_copy(update={"warnings": ["bad"]})
    assert cautions.told([trained, baseline]) is None


def test_what_both_evaluations_say_of_the_training_is_said_once():
    one = row("top_k/k_1", l0=1, recovered=1, warnings=["of training", "mine"])
    other = row("top_k/k_1", l0=1, recovered=1, warnings=["of training", "yours"])
    (found,) = rows.joined([[one], [other]])
    assert found.warnings == ["of training", "mine", "yours"]
    assert not math.isnan(found.dictionary_learning.l0)
