"""`saemake build`: the snakemake command that it runs, and the folder that it builds in."""

import shlex
import sys

import pytest
import yaml
from conftest import raw_config

from saemake.__main__ import COMMANDS, main
from saemake.base import gpus
from saemake.base.errors import SaemakeError
from saemake.base.source import ROOT
from saemake.commands import build, project

NINE = ROOT / "config" / "nine.yaml"
SAE = "results/demo/L3/top_k/1k/k_8"
FIXED = [
    *("--snakefile", str(ROOT / "Snakefile")),
    *("--workflow-profile", str(ROOT / "profiles" / "default")),
]


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(gpus, "DRIVERS_GPUS", tmp_path / "none")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder in which something was built, with a folder below it."""
    (tmp_path / "results/.store").mkdir(parents=True)
    (tmp_path / "results/demo/L3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_for(line, here):
    """What comes after `python -m snakemake`, without the options that are always there."""
    command = build.snakemake_command(shlex.split(line), here)
    assert command[:3] == [sys.executable, "-m", "snakemake"]
    words = command[3:]
    at = words.index("--snakefile")
    assert words[at : at + 4] == FIXED
    return shlex.join([*words[:at], *words[at + 4 :]])


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("", ""),
        ("-n", "-n"),
        (f"{SAE}/ae.pt", f"{SAE}/ae.pt"),
        (f"--resources gpu=1 {SAE}/ae.pt", f"{SAE}/ae.pt --resources gpu=1"),
        (f"--config x=1 {SAE}/ae.pt -n", f"{SAE}/ae.pt --config x=1 -n"),
        (f"--cores 1 {SAE} -n", f"{SAE}/metrics.json --cores 1 -n"),
        ("demo/L3/top_k/1k/k_8/", f"{SAE}/metrics.json"),
        (f"./{SAE}", f"{SAE}/metrics.json"),
        (f"{SAE}/seed_3 {SAE}/seed_3", f"{SAE}/seed_3/metrics.json"),
        (
            "demo/L3/standard/1k/penalty_0.03",
            "results/demo/L3/standard/1k/penalty_0.03/metrics.json",
        ),
        ("--cores 1 demo/L3/top_k/1k", "results/demo/L3/top_k/1k/metrics.json --cores 1"),
        ("demo/L3/baselines", "results/demo/L3/baselines/metrics.json"),
        ("hub/adamkarvonen -n", "hub/adamkarvonen -n"),
        ("saelens/demo/L3/top_k/1k/k_8", "saelens/demo/L3/top_k/1k/k_8/sae_weights.safetensors"),
        (f"-R {SAE}/ae.pt -n", f"-R {SAE}/ae.pt -n"),
        (f"{SAE} -R {SAE}/ae.pt", f"{SAE}/metrics.json -R {SAE}/ae.pt"),
        ("all -n", "all -n"),
        ("--cores 1 demo/L3/report.html", "results/demo/L3/report.html --cores 1"),
        (
            "--resources gpu=1 results/demo/L3/report.html",
            "results/demo/L3/report.html --resources gpu=1",
        ),
        (
            f"--configfile {ROOT}/config/nine.yaml {SAE}/features.html",
            f"{SAE}/features.html --configfile {ROOT}/config/nine.yaml",
        ),
        ("-R demo/L3/top_k/1k/k_8/ae.pt -n", f"-R {SAE}/ae.pt -n"),
    ],
)
def test_targets_come_first_and_folders_stand_for_files(line, right, elsewhere):
    assert words_for(line, elsewhere) == right


def test_a_model_and_a_layer_stand_for_the_figures_of_the_suite(elsewhere):
    of_model = words_for("--cores 2 demo", elsewhere)
    assert of_model.startswith("results/demo/L3/figures/")
    assert of_model == words_for("demo/L3 --cores 2", elsewhere)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("demo/L3/topk/1k", "no architecture 'topk' in the config; did you mean 'top_k'?"),
        ("demo/L9", "demo has layers L0 to L5, not L9"),
        ("results/dem", "no model 'dem' in the config; did you mean 'demo'?"),
        (f"{SAE}/aept", "an SAE has no file 'aept'; did you mean 'ae.pt'?"),
        ("result/demo/L3/top_k", "did you mean 'results/demo/L3/top_k'?"),
        ("demo/L3/top_k/1k/k_8/checkpoints", "the config asks for no checkpoints of top_k"),
        ("nothing", "artifacts are under results/, hub/"),
        (
            "demo/L3/top_k",
            "results/demo/L3/top_k: the folder of an architecture is no target; name a width in it:"
            " top_k/1k, top_k/4k,",
        ),
        ("demo/L3/topk", "results/demo/L3/topk: no architecture 'topk' in the config; did you"),
        (
            "demo/L3/figures/sae_bench_core.mse_vs_l.pdf",
            "no figure 'sae_bench_core.mse_vs_l' in the config; did you mean"
            " 'sae_bench_core.mse_vs_l0'?",
        ),
        (
            "results/dem/L3/report.html",
            "did you mean 'demo'? (if a config file of your own has it, add --configfile FILE)",
        ),
        ("results", "results: this is a folder; name a file in it, or a model's folder"),
    ],
)
def test_a_target_that_is_none_is_refused_in_one_line(target, message, elsewhere):
    with pytest.raises(SaemakeError) as caught:
        build.snakemake_command([target, "-n"], elsewhere)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_builds_where_results_are(elsewhere, capfd):
    below = elsewhere / "results/demo"
    assert project.folder(below) == project.folder(elsewhere) == elsewhere
    line = words_for("L3/top_k/1k/k_8/ae.pt -n", below)
    assert line == f"{SAE}/ae.pt -n"
    assert capfd.readouterr().err == f"saemake: builds in {elsewhere}\n"
    assert words_for(str(elsewhere / SAE), below) == f"{SAE}/metrics.json"
    # As the README has it, and a page of the folder; a report goes to where it is asked for.
    assert words_for(f"{SAE}/ae.pt", below) == f"{SAE}/ae.pt"
    assert words_for("L3/report.html", below) == "results/demo/L3/report.html"
    assert words_for("--report r.html", below) == f"--report {below}/r.html"


def test_it_builds_in_the_project_where_nothing_was_built(tmp_path):
    assert project.folder(tmp_path) == ROOT


def test_an_option_says_where_to_build(elsewhere, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for option in ("--directory x", "--directory=x", "-d x", "-dx"):
        assert words_for(f"{SAE} {option}", other) == f"{SAE}/metrics.json {option}"
        assert words_for(f"{other}/x/{SAE} {option}", other) == f"{SAE}/metrics.json {option}"


def test_a_config_file_is_found_from_another_folder(elsewhere):
    below = elsewhere / "results/demo"
    (below / "own.yaml").write_text("models: {mine: {folder: resources/demo/lm}}\n")
    with pytest.raises(SaemakeError, match=r"models\.mine\.dtype': missing"):
        build.snakemake_command(["mine/L0", "--configfile", "own.yaml"], below)
    (below / "own.yaml").write_text("widths: {tiny: 64}\n")
    line = words_for("--configfile own.yaml demo/L3/top_k/tiny", below)
    assert line == (f"results/demo/L3/top_k/tiny/metrics.json --configfile {below / 'own.yaml'}")


@pytest.fixture
def mine(elsewhere):
    """A model whose name is that of the folder with its config file."""
    model = {"mine": raw_config()["models"]["demo"]}
    figure = {"layers": {"sweeps": ["mine/L*/*/1k"], "y": "sae_bench_core.mse"}}
    (elsewhere / "mine").mkdir()
    path = elsewhere / "mine/mine.yaml"
    path.write_text(yaml.safe_dump({"models": model, "figures": figure}))
    return elsewhere


@pytest.mark.parametrize(
    ("target", "file"),
    [
        ("mine/L3/top_k/1k/k_8", "results/mine/L3/top_k/1k/k_8/metrics.json"),
        ("results/mine/L3/top_k/1k/k_8/ae.pt", "results/mine/L3/top_k/1k/k_8/ae.pt"),
        ("results/figures/layers.pdf", "results/figures/layers.pdf"),
        ("figures/layers.pdf", "results/figures/layers.pdf"),
    ],
)
def test_a_config_file_in_a_folder_of_a_models_name_is_no_target(mine, target, file):
    right = f"{file} --configfile {mine}/mine/mine.yaml"
    assert words_for(f"{target} --configfile mine/mine.yaml", mine) == right
    assert words_for(f"--configfile mine/mine.yaml {target}", mine) == right
    assert words_for(f"{target} --configfile=mine/mine.yaml", mine) == right.replace(
        "--configfile ", "--configfile="
    )
    (mine / "mine/more.json").write_text('{"widths": {"tiny": 64}}')
    more = f"{right} {mine}/mine/more.json"
    assert words_for(f"--configfile mine/mine.yaml mine/more.json {target}", mine) == more
    table = "mine/L3/top_k/1k/metrics.json"
    assert words_for(f"--configfile mine/mine.yaml {table}", mine).startswith(f"results/{table} -")


def test_a_report_in_a_folder_of_a_models_name_is_no_target(mine):
    line = "--configfile mine/mine.yaml --report mine/r.html mine/L3/top_k/1k"
    assert words_for(line, mine) == (
        f"results/mine/L3/top_k/1k/metrics.json --configfile {mine}/mine/mine.yaml --report"
        f" {mine}/mine/r.html"
    )


def test_a_model_of_a_config_file_in_its_folder(mine):
    of_model = words_for("mine --configfile mine/mine.yaml", mine)
    assert of_model.startswith("results/mine/L3/figures/")
    assert of_model.endswith(f"report.html --configfile {mine}/mine/mine.yaml")


def test_one_job_at_a_time_uses_a_gpu(elsewhere, monkeypatch):
    monkeypatch.setattr(gpus, "DRIVERS_GPUS", elsewhere)  # not empty
    assert words_for(SAE, elsewhere).endswith("--resources gpu=1")
    assert words_for(f"{SAE} --resources gpu=2", elsewhere).endswith("--resources gpu=2")
    # Snakemake takes the last --resources alone.
    with_others = words_for(f"{SAE} --resources mem_mb=8 -n", elsewhere)
    assert with_others.endswith("--resources mem_mb=8 gpu=1 -n") or with_others.endswith(
        "--resources gpu=1 mem_mb=8 -n"
    )
    assert words_for(f"{SAE} --res=mem_mb=8", elsewhere).endswith("--res mem_mb=8 gpu=1")
    # A job that takes several can have them.
    (elsewhere / "two.yaml").write_text("models: {demo: {lm_devices: 2}}")
    assert words_for(f"{SAE} --configfile two.yaml", elsewhere).endswith("--resources gpu=2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "gpu" not in words_for(SAE, elsewhere)


def test_without_a_command_the_commands_are_listed(capsys):
    assert main([]) == 2
    said = capsys.readouterr().err
    assert all(f"\n    {name} " in said for name in ("build", *COMMANDS))


def test_errors_of_build_are_one_line_unless_a_traceback_is_asked_for(elsewhere, capfd):
    assert main(["build", "demo/L9"]) == 2
    assert capfd.readouterr().err == "saemake: results/demo/L9: demo has layers L0 to L5, not L9\n"
    with pytest.raises(SaemakeError):
        main(["--traceback", "build", "demo/L9"])
