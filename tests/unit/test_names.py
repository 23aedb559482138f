import pytest
from conftest import PROJECT, raw_config

from saemake.base.errors import SaemakeError, nearest
from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.paths import names
from saemake.paths.command_words import check_target
from saemake.paths.names import SaeName, Sweep
from saemake.paths.sweeps import members


def test_a_sweep_lists_its_saes_in_the_configs_order(config):
    sweep = Sweep("gemma-2-2b", Hookpoint(12), "top_k", "16k")
    folders = [member.folder for member in members(config, sweep)]
    assert folders == [
        f"results/gemma-2-2b/L12/top_k/16k/k_{k}" for k in (20, 40, 80, 160, 320, 640)
    ]


def test_a_sparsity_is_named_by_its_parameter_and_value():
    assert names.sparsity_name("top_k", 80) == "k_80"
    assert names.sparsity_name("standard_new", 0.03) == "penalty_0.03"
    sae = SaeName(Sweep("demo", Hookpoint(3), "standard_new", "1k"), 0.06)
    assert str(sae) == "demo/L3/standard_new/1k/penalty_0.06"


@pytest.mark.parametrize(
    "path",
    [
        "results/gemma-2-2b/L12/top_k/16k/metrics.json",
        "results/gemma-2-2b/L25/standard_new/65k/penalty_0.012/ae.pt",
        "results/pythia-160m-deduped/L0/batch_top_k/4k/k_20/training.csv",
        "results/demo/L3/figures/loss_recovered_vs_l0.svg",
        "results/demo/L3/top_k/2k/metrics.json",
        "./results//demo/L3/top_k/1k/k_8/ae.pt",
        "results/demo/L3/top_k/3072/k_24/metrics.json",
        "results/demo/L3/top_k/16/k_8/ae.pt",
        "results/demo/L3/top_k/1k/k_24/seed_3/sae_bench_core.json",
        "results/demo/L3/standard/1k/penalty_0.05/ae.pt",
        "saelens/demo/L3/top_k/1k/k_24/seed_3/cfg.json",
        "results/demo/model.json",
        "results/demo/tokens/train/manifest.json",
        "--cores",
        "all",
        "elsewhere/demo/x",
    ],
)
def test_right_names_pass(config, path):
    check_target(config, path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gemma-2b/L12/top_k/16k/metrics.json", "no model 'gemma-2b'.*mean 'gemma-2-2b'"),
        ("demo/L6/top_k/1k/metrics.json", "demo has layers L0 to L5, not L6"),
        ("demo/L6/figures/loss_recovered_vs_l0.pdf", "demo has layers L0 to L5, not L6"),
        ("demo/3/top_k/1k/metrics.json", "'3' is not a layer"),
        ("demo/L03/top_k/1k/metrics.json", "'L03' is not a layer"),
        ("demo/L3/topk/1k/metrics.json", "no architecture 'topk'.*mean 'top_k'"),
        ("demo/L3/top_k/1kk/metrics.json", "no width '1kk'.*mean '1k'"),
        ("gemma-2-2b/L12/top_k/16k/k_8o/ae.pt", "no sparsity 'k_8o'.*mean 'k_80'"),
        ("demo/L3/top_k/1k/k_2.5/ae.pt", "'k_2.5' cannot be a sparsity of top_k.*known: k_2, k_4"),
        ("demo/L3/top_k/1k/k_0/ae.pt", "'k_0' cannot be a sparsity of top_k.*greater than 0.*k_2"),
        ("demo/L3/top_k/1k/k_024/ae.pt", "sparsity 'k_024' is spelt 'k_24'$"),
        ("demo/L3/top_k/1k/k_1025/ae.pt", "'k_1025' needs 1025 latents, more than the 1024"),
        ("demo/L3/top_k/1k/l0_8/ae.pt", "'l0_8' is no sparsity of top_k.*mean 'k_8'"),
        ("demo/L3/standard_new/1k/penalty_1/ae.pt", "'penalty_1' is spelt 'penalty_1.0'$"),
        ("demo/L3/standard_new/1k/penalty_0.030/ae.pt", "is spelt 'penalty_0.03'$"),
        ("demo/L3/standard_new/1k/penalty_-1/ae.pt", "'penalty_-1' cannot be.*greater than 0"),
        ("demo/L3/standard_new/1k/penalty_nan/ae.pt", "'penalty_nan' cannot be"),
        ("demo/L3/top_k/1024/metrics.json", "width '1024' is spelt '1k'$"),
        ("demo/L3/top_k/1048577/k_2/ae.pt", "1,048,577 latents, more than the most, 1,048,576"),
        ("demo/L3/top_k/0k/k_2/ae.pt", "no width '0k'"),
        ("demo/L3/top_k/02k/k_2/ae.pt", "no width '02k'"),
        ("demo/L3/top_k/1k/k_8/seed_0/ae.pt", "seed 0 is the config's.*has no 'seed_0'"),
        ("demo/L3/top_k/1k/k_8/seed_03/ae.pt", "seed 'seed_03' is spelt 'seed_3'$"),
        ("demo/L3/top_k/1k/k_8/seed_x/ae.pt", "'seed_x' is no seed; seeds are named seed_1"),
        ("demo/L3/top_k/1k/k_8/seed_3", "this is a folder;.*k_8/seed_3/ae.pt"),
        ("tiny/L3/top_k/1k/metrics.json", "no model 'tiny' in.*of your own has it, add --configf"),
        ("gemma-2-2b/L12/top_k/16k/k_80/ea.pt", "no file 'ea.pt'.*mean 'ae.pt'"),
        ("gemma-2-2b/L12/top_k/16k/k_80", "this is a folder;.*k_80/metrics.json, k_80/ae.pt"),
        ("gemma-2-2b/L12/top_k/16k", "this is a folder;.*16k/metrics.json, 16k/k_20/ae.pt"),
        (
            "gemma-2-2b/L12/top_k/16k/metric.json",
            "files of a sweep are 16k/metrics.json, 16k/k_20/ae.pt",
        ),
        ("demo/L3/figures/loss_recoverd_vs_l0.pdf", "no figure.*mean 'loss_recovered_vs_l0'"),
        ("demo/L3/figures/loss_recovered_vs_l0.png", "figures end in .pdf or .svg"),
        ("demo/tokens/test/manifest.json", "tokens/train/manifest.json"),
        ("demo/L3", "this is a folder"),
        ("demo", "this is a folder.*figures/loss_recovered_vs_l0.pdf"),
        ("../etc/passwd", "no model '..'"),
    ],
)
def test_wrong_names_are_told_the_nearest(config, path, message):
    with pytest.raises(SaemakeError, match=rf"^results/{path}: .*{message}"):
        check_target(config, f"results/{path}")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("demo", "demo: this is a model;.*results/demo/L3/figures/loss_recovered_vs_l0.pdf"),
        ("demo/L3/top_k/1k/metrics.json", "did you mean 'results/demo/L3/top_k/1k/metrics.json'?"),
        ("/home/me/results/demo/model.json", "directory; in /home/me name results/demo/model.json"),
        ("../mine/results/demo/model.json", "directory; in ../mine name results/demo/model.json"),
    ],
)
def test_a_path_from_another_place_is_told_the_right_one(config, path, message):
    with pytest.raises(SaemakeError, match=message):
        check_target(config, path)


def test_a_width_smaller_than_k_is_refused():
    config = read(raw_config({"widths": {"tiny": 32}}), PROJECT, [])
    message = "sweep': needs 64 latents, more than the 32 of widths.tiny"
    with pytest.raises(SaemakeError, match=message):
        check_target(config, "results/demo/L3/top_k/tiny/metrics.json")
    check_target(config, "results/demo/L3/standard_new/tiny/metrics.json")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("result/demo/L3/top_k/1k/k_8/ae.pt", "did you mean 'results/demo/L3/top_k/1k/k_8/ae.pt'"),
        ("Results/demo/model.json", "did you mean 'results/demo/model.json'"),
        ("saelen/demo/L3/top_k/1k/k_8/cfg.json", "did you mean 'saelens/demo/L3"),
    ],
)
def test_another_folder_than_results_is_told(config, path, message):
    with pytest.raises(SaemakeError, match=rf"^{path}: .*{message}"):
        check_target(config, path)


def test_the_nearest_word_is_one_that_begins_like_it():
    devices = ["a100-80gb", "h100", "h200"]
    assert nearest("a100", devices) == "did you mean 'a100-80gb'?"
    assert nearest("h10", devices) == "did you mean 'h100'?"
    assert nearest("g100", devices) == "did you mean 'h100'?"
