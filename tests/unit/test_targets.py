"""`build`, `plan`, `why` and `verify` take the same names."""

import pytest

from saemake.__main__ import main
from saemake.base.errors import SaemakeError
from saemake.commands import targets, verify, why
from saemake.commands.dry_run import Job
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.files import build_files, figure_files

SWEEP = "results/demo/L3/top_k/1k"
SAE = f"{SWEEP}/k_8"
FIGURE = "demo/L3/figures/loss_recovered_vs_l0.pdf"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which something was built."""
    (tmp_path / "results/.store").mkdir(parents=True)
    (tmp_path / "results/demo/L3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(config, word, folder, here=None):
    return targets.files_of(config, targets.path_of(config, word, here or folder, folder))


@pytest.mark.parametrize(
    ("word", "named"),
    [
        (SAE, [f"{SAE}/metrics.json"]),
        ("demo/L3/top_k/1k/k_8/", [f"{SAE}/metrics.json"]),
        ("./demo/L3/top_k/1k/k_8/ae.pt", [f"{SAE}/ae.pt"]),
        ("demo/L3/top_k/1k", [f"{SWEEP}/metrics.json"]),
        (FIGURE, [f"results/{FIGURE}"]),
    ],
)
def test_a_name_stands_for_files(config, folder, word, named):
    assert files(config, word, folder) == named


def test_a_name_is_found_from_another_folder(config, folder):
    assert files(config, f"{folder}/{SAE}/ae.pt", folder) == [f"{SAE}/ae.pt"]
    below = folder / "results/demo"
    assert files(config, "L3/top_k/1k/k_8/ae.pt", folder, below) == [f"{SAE}/ae.pt"]


def test_a_plain_run_and_figures(config, folder):
    assert files(config, "all", folder) == build_files(config)
    assert files(config, "demo/L3/figures", folder) == figure_files(config, "demo", Hookpoint(3))
    with pytest.raises(
        SaemakeError, match=r"results/figures/frontier\.pdf: the config describes no"
    ):
        files(config, "figures/frontier.pdf", folder)


@pytest.mark.parametrize("command", ["plan", "why", "verify"])
def test_the_commands_refuse_what_build_refuses(folder, capsys, command):
    assert main([command, "demo/L3/topk/1k"]) == 2
    assert capsys.readouterr().err == (
        "saemake: results/demo/L3/topk/1k: no architecture 'topk' in the config; did you mean"
        " 'top_k'?\n"
    )


def test_plan_counts_a_folder_that_leaves_out_results(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder / "results/demo")
    assert main(["plan", "demo/L3/top_k/1k/k_8/ae.pt"]) == 0
    said = capsys.readouterr().out
    assert "demo/L3/top_k/1k" in said
    assert main(["plan", f"{SAE}/ae.pt"]) == 0
    assert capsys.readouterr().out == said


def test_why_of_a_folder_with_nothing_built_is_why_of_what_would_be(folder, capsys):
    for _ in range(2):
        assert main(["why", "demo/L3/top_k/1k/k_8"]) == 1
        said = capsys.readouterr().out
        reason = f"{SAE}/metrics.json does not exist"
        assert said == f"demo/L3/top_k/1k/k_8: not current\n  {reason}\n"
        (folder / SAE).mkdir(parents=True, exist_ok=True)


def test_a_reason_names_what_a_run_would_do_and_no_rule():
    job = Job(
        rule="evaluate__demo__batch_top_k",
        message=lambda: "evaluate demo/L3/batch_top_k/1k by sae_bench_core on 32 contexts of 128",
        runs=True,
        params_changed=False,
        inputs_before=None,
        **{name: [] for name in ("inputs", "outputs", "needed", "missing", "newer", "incomplete")},
    )
    assert list(why._unexplained([job])) == [
        "a run would evaluate demo/L3/batch_top_k/1k by sae_bench_core, whose files are missing or"
        " out of date"
    ]


def test_verify_says_to_build_what_is_not_built(folder, capsys):
    assert main(["verify", "demo/L3/top_k/1k/k_8"]) == 2
    assert capsys.readouterr().err == (
        "saemake: demo/L3/top_k/1k/k_8 is not built; build it first: saemake build"
        " demo/L3/top_k/1k/k_8 (with the options of your run)\n"
    )


def test_verify_takes_what_is_made_of_saes(config, folder):
    for word in ("demo/L3", "demo/L3/report.html", FIGURE):
        saes = {sae.own_part for sae in verify._saes(config, word, folder)}
        assert {"k_8", "penalty_0.1"} & saes
    (sae,) = verify._saes(config, "saelens/demo/L3/top_k/1k/k_8", folder)
    assert str(sae) == "demo/L3/top_k/1k/k_8"
    with pytest.raises(SaemakeError, match="name a file of an SAE"):
        verify._saes(config, "demo/model.json", folder)
