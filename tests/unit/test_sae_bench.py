"""SAE Bench's evaluations: what they depend on, what they cost, whom they can judge, how noise is
measured. Their figures are tested in tests/acceptance."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CONFIG_FILE, PROJECT, merged, raw_config

from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.config.rebuilding import config_yaml
from saemake.evaluation import by_sae_bench
from saemake.evaluation.sae_bench.autointerp import Autointerp
from saemake.jobs import before
from saemake.judging import by_sae_bench as judging
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import judged_by
from saemake.paths.grammar import parse
from saemake.paths.names import Baselines, SaeName, SetupName, Sweep
from saemake.plan.totals import plan
from saemake.recipes.inputs import _digest_of, dataset_recipe
from saemake.recipes.judging import evaluation_recipes, sae_evaluation_recipes, setup_recipe, setups
from saemake.recipes.kinds import SaeBenchRecipe

PYTHIA, GEMMA = "pythia-160m-deduped", "gemma-2-2b"
GIGABYTE = 1e9
SAE = SaeName(Sweep(PYTHIA, Hookpoint(8), "top_k", "4k"), 20)


def configured(over: dict[str, Any] | None = None) -> Config:
    return read(raw_config(over), PROJECT, [CONFIG_FILE])


@pytest.mark.parametrize(
    ("name", "pythia", "gemma"),
    [
        ("sae_bench_sparse_probing", 35, 53),
        ("sae_bench_scr", 47, 71),
        ("sae_bench_tpp", 10, 15),
        ("sae_bench_sae_probes", 1.0, 3.1),
    ],
)
def test_a_setup_takes_what_was_seen_of_sae_bench(name: str, pythia: float, gemma: float) -> None:
    """Gigabytes at the paper's settings: those of SAE Bench's own artifacts."""
    described = by_sae_bench(name)
    config = configured()
    for model, d_model, element, expected in ((PYTHIA, 768, 4, pythia), (GEMMA, 2304, 2, gemma)):
        size = described.setup_bytes(config.sae_bench_of(model, name), d_model, element)
        assert size / GIGABYTE == pytest.approx(expected, rel=0.02, abs=0.5)


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        (GEMMA, set()),
        (PYTHIA, {"sae_bench_unlearning"}),
        ("pythia-70m-deduped", {"sae_bench_unlearning", "sae_bench_ravel"}),
    ],
)
def test_an_evaluation_judges_the_lms_that_its_code_knows(model: str, refused: set[str]) -> None:
    config = configured()
    sweep = Sweep(model, Hookpoint(3), "top_k", "4k")
    names = config.sae_bench_evaluations
    assert {name for name in names if judged_by.why_not(config, sweep, name)} == refused


def test_no_evaluation_of_sae_bench_judges_an_unknown_lm(tmp_path: Path) -> None:
    demo, named = Sweep("demo", Hookpoint(3), "top_k", "1k"), "EleutherAI/pythia-70m-deduped"
    config = configured({"models": {"demo": {"transformer_lens": None}}})
    assert all(judged_by.why_not(config, demo, name) for name in config.sae_bench_evaluations)
    assert judged_by.why_not(configured(), demo, "sae_bench_tpp") is None
    (tmp_path / "lm.gguf").write_bytes(b"")
    gguf = {"folder": str(tmp_path), "gguf_file": "lm.gguf", "transformer_lens": named}
    packed = configured({"models": {"demo": gguf}})
    assert "GGUF" in str(judged_by.why_not(packed, demo, "sae_bench_tpp"))


def test_an_sae_that_is_too_narrow_is_refused_in_one_line() -> None:
    over = {"widths": {"256": 256}}
    config = configured(over)
    path = "results/demo/L3/top_k/256/k_20/sae_bench_tpp.json"
    with pytest.raises(SaemakeError, match=r"its settings need 500 latents, and 256 has 256$"):
        parse(config, path)
    fewer = merged({"evaluations": {"sae_bench_tpp": {"n_values": [2, 20]}}}, over)
    assert str(parse(configured(fewer), path)) == path


def test_a_suite_leaves_out_what_cannot_judge_and_says_so() -> None:
    evaluations = ["dictionary_learning", "sae_bench_ravel", "sae_bench_tpp"]
    suite = {"suite": {"evaluations": evaluations}}
    config = configured({"models": {"pythia-70m-deduped": suite}})
    sweep = Sweep("pythia-70m-deduped", Hookpoint(3), "top_k", "4k")
    assert judged_by.evaluations_of(config, sweep) == ["dictionary_learning", "sae_bench_tpp"]
    table = parse(config, f"results/{sweep}/metrics.json")
    lines = before.check(config, [table])
    assert len(lines) == 2  # of the sweep and of the baselines
    assert lines[0].startswith(f"sae_bench_ravel is left out for {sweep}: RAVEL's code knows")


def test_a_missing_key_is_told_before_any_work(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config = configured()
    target = parse(config, f"results/{SAE}/sae_bench_autointerp.json")
    with pytest.raises(SaemakeError, match="set the environment variable OPENAI_API_KEY"):
        before.check(config, [target])
    monkeypatch.setenv("OPENAI_API_KEY", "sk")
    assert before.check(config, [target]) == []


@pytest.mark.parametrize(
    "over",
    [
        {"evaluations": {"sae_bench_tpp": {"random_seed": 1}}},
        {"evaluations": {"sae_bench_tpp": {"train_set_size": 100}}},
        {"models": {PYTHIA: {"dtype": "bfloat16"}}},
        {"datasets": {"LabHC/bias_in_bios": {"revision": "a" * 40}}},
        {"models": {PYTHIA: {"training": {"cpu_threads": 1}}}},
    ],
)
def test_a_setup_depends_on(over: dict[str, Any]) -> None:
    def of(config: Config) -> str:
        (setup,) = setups(config, PYTHIA, 8, "sae_bench_tpp")
        return setup_recipe(config, setup).hash

    assert of(configured(over)) != of(configured())


def test_judging_depends_on_what_the_setup_does_not() -> None:
    def hashes(over: dict[str, Any] | None = None) -> tuple[str, str]:
        config = configured({"evaluations": {"sae_bench_tpp": over}} if over else None)
        recipe, *_ = sae_evaluation_recipes(config, SAE, "sae_bench_tpp")
        assert isinstance(recipe, SaeBenchRecipe)
        return recipe.hash, recipe.setup

    (judged, setup), (fewer, same) = hashes(), hashes({"n_values": [2]})
    assert (judged != fewer, setup == same) == (True, True)
    assert hashes({"keep_setup": False}) == (judged, setup)
    assert hashes({"reseeds": 3})[1] == setup


def test_each_seed_has_its_setup() -> None:
    config = configured({"evaluations": {"sae_bench_tpp": {"reseeds": 2}}})
    found = setups(config, PYTHIA, 8, "sae_bench_tpp")
    assert found == [SetupName(PYTHIA, 8, "sae_bench_tpp", seed) for seed in (42, 43, 44)]
    of_seeds = sae_evaluation_recipes(config, SAE, "sae_bench_tpp")
    assert len({recipe.hash for recipe in of_seeds}) == 3
    before_ = sae_evaluation_recipes(configured(), SAE, "sae_bench_tpp")
    assert of_seeds[0].hash == before_[0].hash


def test_a_judge_is_known_by_its_place_and_model_not_its_price_or_key() -> None:
    def recipe(**judge: Any) -> str:
        config = configured({"evaluations": {"sae_bench_autointerp": {"judge": judge}}})
        return sae_evaluation_recipes(config, SAE, "sae_bench_autointerp")[0].hash

    assert recipe() == recipe(key_variable="OTHER", dollars_asked=9.0)
    assert len({recipe(), recipe(model="other"), recipe(base_url="http://localhost:1/v1")}) == 3


def test_a_url_with_a_password_is_refused() -> None:
    judge = {"base_url": "https://user:secret@host/v1"}
    with pytest.raises(SaemakeError, match=r"sae_bench_autointerp.judge.base_url"):
        configured({"evaluations": {"sae_bench_autointerp": {"judge": judge}}})


def test_published_saes_cost_what_a_judge_asked_for_them() -> None:
    settings = configured().sae_bench_of(PYTHIA, "sae_bench_autointerp")
    assert 252 * Autointerp.dollars(settings) == pytest.approx(54, rel=0.02)
    assert Autointerp.questions(settings) == 2_000


def test_figures_are_those_that_the_settings_ask_for() -> None:
    described = by_sae_bench("sae_bench_tpp")
    over = {"evaluations": {"sae_bench_tpp": {"n_values": [2, 20]}}}
    settings = configured(over).sae_bench_of(PYTHIA, "sae_bench_tpp")
    metrics = {
        "tpp_metrics": {
            "tpp_threshold_2_total_metric": 0.1,
            "tpp_threshold_20_total_metric": None,
            "tpp_threshold_50_total_metric": None,
        }
    }
    assert described.figures(metrics, settings) == {
        "tpp_threshold_2_total_metric": 0.1,
        "tpp_threshold_20_total_metric": None,
    }


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(2, 4.30265), (4, 2.77645), (8, 2.30600), (38, 2.02439)]
)
def test_quantiles_of_students_t(degrees: int, quantile: float) -> None:
    """From Abramowitz and Stegun, table 26.10."""
    assert judging._t(degrees) == pytest.approx(quantile, abs=1e-5)


def test_noise_by_hand() -> None:
    found = judging.noise([{"a": 1.0, "b": None}, {"a": 3.0, "b": None}, {"a": 2.0, "b": 5.0}])
    assert found["a"] == {
        "seeds": 3,
        "mean": 2.0,
        "standard_deviation": 1.0,
        "smallest_difference": pytest.approx(2.77645 * (2 / 3) ** 0.5, rel=1e-5),
    }
    assert found["b"] == {
        "seeds": 1,
        "mean": 5.0,
        "standard_deviation": None,
        "smallest_difference": None,
    }


def test_pca_is_the_baseline_that_sae_bench_judges() -> None:
    config = configured()
    found = evaluation_recipes(config, Baselines(PYTHIA, Hookpoint(8)), "sae_bench_tpp")
    assert list(found) == ["pca"]


def test_the_conda_environment_has_the_pins() -> None:
    described = yaml.safe_load((PROJECT / "envs" / "saebench.yaml").read_text())
    pins = (PROJECT / "envs" / "saebench.txt").read_text().split()
    assert described["dependencies"][-1]["pip"] == pins


def test_an_sae_narrower_than_the_lm_is_refused() -> None:
    sweep = Sweep(GEMMA, Hookpoint(12), "top_k", "1k")
    assert "fewer latents than the LM is wide (2304)" in str(
        judged_by.why_not(configured(), sweep, "sae_bench_tpp")
    )


def test_the_readme_of_a_local_dataset_counts(tmp_path: Path) -> None:
    """load_dataset reads what is where from it."""
    (tmp_path / "README.md").write_text("one")
    (tmp_path / "rows.jsonl").write_text("{}")
    over = {"datasets": {"wikitext": {"hub": None, "folder": str(tmp_path), "files": ["*"]}}}
    before_ = dataset_recipe(configured(over), "wikitext").hash
    (tmp_path / "README.md").write_text("another")
    _digest_of.cache_clear()
    assert dataset_recipe(configured(over), "wikitext").hash != before_


def test_a_setup_that_is_not_kept_is_planned_as_often_as_it_is_made(tmp_path: Path) -> None:
    def setups(kept: bool) -> int:
        over = {"evaluations": {"sae_bench_tpp": {"keep_setup": kept}}}
        targets = [
            f"results/{PYTHIA}/L8/{kind}/4k/{name}/sae_bench_tpp.json"
            for kind, name in (("top_k", "k_20"), ("gated", "penalty_0.012"))
        ]
        return len(plan(configured(over), targets, tmp_path).work.set_up)

    assert (setups(True), setups(False)) == (1, 2)


def test_all_nine_have_a_plan(tmp_path: Path) -> None:
    config = configured(yaml.safe_load((PROJECT / "config" / "nine.yaml").read_text()))
    made = plan(config, [f"results/{GEMMA}/L12/top_k/16k/metrics.json"], tmp_path)
    assert {job.name.rpartition(" by ")[2] for job in made.jobs if job.stage == "SAE Bench"} == set(
        config.sae_bench_evaluations
    )
    assert made.disk.setups / GIGABYTE == pytest.approx(53 + 71 + 15 + 3.1, rel=0.01)
    assert made.judge.questions == 7 * 2_000  # of six SAEs and PCA
    assert "bio-forget-corpus" in made.download.datasets
    hours = made.hours_by_stage(config.devices["rtx-3090"])
    # README: setups of 33, 1, 45, 22, 5, 15, 25 and 33 minutes; sae-probes' are in float32.
    assert hours["SAE Bench, setup"] == pytest.approx((179 - 25 + 2 * 25) / 60, rel=0.05)


def test_a_push_that_rebuilds_elsewhere_has_the_lm_that_unlearning_asks() -> None:
    evaluations = ["dictionary_learning", "sae_bench_unlearning"]
    config = configured({"models": {GEMMA: {"suite": {"evaluations": evaluations}}}})
    content = yaml.safe_load(config_yaml(config, GEMMA))
    assert set(content["models"]) == {GEMMA, "gemma-2-2b-it"}
    assert set(content["datasets"]) == {"cais/wmdp", "cais/mmlu", "wikitext", "bio-forget-corpus"}
    rebuilt = configured(content)
    sweep = SaeName(Sweep(GEMMA, Hookpoint(12), "top_k", "16k"), 80)
    for each in evaluations:
        ours, theirs = (sae_evaluation_recipes(c, sweep, each) for c in (config, rebuilt))
        assert [recipe.hash for recipe in ours] == [recipe.hash for recipe in theirs]
