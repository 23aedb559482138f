"""What a figure shows: whose tables it reads, by its name or by the config."""

import pytest
from conftest import CONFIG_FILE, PROJECT, raw_config

from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import shown
from saemake.paths.grammar import parse

L3 = "results/demo/L3"


def config(over=None):
    return read(raw_config(over), PROJECT, [CONFIG_FILE])


def files(name, over=None):
    checked = config(over)
    return shown.of_hookpoint(checked, name, "demo", Hookpoint(3)).files(checked)


SWEEPS = [f"{L3}/{name}/1k/metrics.json" for name in ("top_k", "batch_top_k", "standard_new")]


def test_a_column_is_read_from_the_sweeps_tables():
    assert files("sae_bench_core.mse_vs_l0") == SWEEPS
    assert files("loss_recovered_vs_l0_by_width") == SWEEPS


def test_an_evaluation_that_the_suite_lacks_is_judged_apart():
    tables = files("sae_bench_tpp.tpp_threshold_20_total_metric_vs_l0")
    assert tables[:3] == SWEEPS
    assert f"{L3}/top_k/1k/k_8/sae_bench_tpp.json" in tables


def test_a_histogram_reads_what_lies_beside_the_tables_of_each_sae():
    tables = files("latent_densities")
    assert tables[:3] == SWEEPS
    assert tables[3] == f"{L3}/top_k/1k/k_2/sae_bench_core_latents.parquet"
    assert len(tables) == 3 + 18
    suite = {"models": {"demo": {"suite": {"evaluations": ["dictionary_learning"]}}}}
    assert f"{L3}/top_k/1k/k_2/sae_bench_core.json" in files("latent_densities", suite)
    assert files("training_curves")[3] == f"{L3}/top_k/1k/k_2/training.csv"


def own(**described):
    over = {"figures": {"mine": {"y": "sae_bench_core.mse", **described}}}
    checked = config(over)
    return shown.of_own(checked, "mine").files(checked)


def test_an_own_figure_names_sweeps_and_saes_and_patterns():
    assert own(sweeps=["demo/L3/*"]) == SWEEPS
    assert own(sweeps=["demo/L5/top_k/2k"]) == ["results/demo/L5/top_k/2k/metrics.json"]
    seed = "demo/L3/top_k/1k/k_8/seed_3"
    assert own(sweeps=[seed, "*/top_k/1k", seed]) == [
        f"results/{seed}/metrics.json",
        f"{L3}/top_k/1k/metrics.json",
    ]
    outside = "demo/L3/top_k/1k/k_24"
    assert own(sweeps=["demo/L3/*", outside]) == [*SWEEPS, f"results/{outside}/metrics.json"]
    tables = own(sweeps=["demo/L3/top_k/1k"], y=["sae_bench_tpp.tpp_threshold_20_total_metric"])
    assert f"{L3}/top_k/1k/k_8/sae_bench_tpp.json" in tables


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("demo/L3/topk/1k", "no architecture 'topk' in the config; did you mean 'top_k'?"),
        ("dem*/L3/gated/*", "no sweep of a suite matches 'dem*/L3/gated/*'; "),
        ("demo/L3/baselines", "'demo/L3/baselines' is not a sweep or an SAE"),
    ],
)
def test_an_own_figure_of_no_sweep_is_refused(sweep, message):
    with pytest.raises(SaemakeError, match=r"^figures\.mine\.sweeps: ") as caught:
        own(sweeps=[sweep])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_own_figure_of_an_evaluation_that_can_judge_none_is_refused():
    narrow = "demo/L3/top_k/64/k_8"
    with pytest.raises(SaemakeError, match=r"figures\.mine: sae_bench_tpp can judge none of its"):
        own(sweeps=[narrow], y="sae_bench_tpp.tpp_threshold_20_total_metric")


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ("sae_bench_core.msx_vs_l0", "sae_bench_core has no column 'msx'; did you mean 'mse'?"),
        ("sae_bench.mse_vs_l0", "no evaluation 'sae_bench' in the config"),
        ("sae_bench_core.mse_vs_tokens", "the config asks for no checkpoints"),
        ("sae_bench_core.mse_vs_tokens_by_width", "no figure"),
        ("overviw", "no figure 'overviw' in the config; did you mean 'overview'?"),
    ],
)
def test_a_figure_that_is_none_is_refused(figure, message):
    with pytest.raises(SaemakeError) as caught:
        parse(config(), f"{L3}/figures/{figure}.pdf")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_own_figure_that_is_none_is_told_the_nearest():
    checked = config({"figures": {"mine": {"sweeps": ["demo/L3/*"], "y": "sae_bench_core.mse"}}})
    with pytest.raises(SaemakeError, match=r"describes no figure 'min\.pdf'; did you mean 'mine"):
        parse(checked, "results/figures/min.pdf")
    with pytest.raises(SaemakeError, match="the config describes no figure; give it one"):
        parse(config(), "results/figures/min.pdf")


def test_a_course_of_an_evaluation_apart_judges_the_checkpoints_too():
    checkpoints = {"architectures": {"top_k": {"checkpoints": [0, 0.5]}}}
    tables = files("sae_bench_tpp.tpp_threshold_20_total_metric_vs_tokens", checkpoints)
    assert f"{L3}/top_k/1k/k_8/sae_bench_tpp.json" in tables
    assert f"{L3}/top_k/1k/k_8/checkpoints/sae_bench_tpp.json" in tables
    assert not any("batch_top_k" in path for path in tables)
