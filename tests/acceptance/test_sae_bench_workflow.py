"""SAE Bench's evaluations through snakemake: real rules, SAE Bench's own code, a small LM, data
laid out by hand. The figures are those of its `run_eval` called by hand on the same files; the same
alone, with others, in another order, after a kill. What a setup depends on makes it anew.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_ground
import bench_workflow
import chat_ground
import peers
import pytest
from bench_names import BASE, CHAT
from bench_workflow import LAYER, MODEL, SETTINGS, SWEEP, BenchWorkflow
from conftest import PROJECT, copied, merged, write_catalogue
from hub_server import LocalHub
from judge_server import JudgeServer

from saemake.evaluation import by_sae_bench

AS_GEMMA = PROJECT / "tests" / "acceptance" / "as_gemma.py"
BY_HAND = PROJECT / "tests" / "acceptance" / "call_sae_bench.py"
TPP = "sae_bench_tpp"
SAES = ("k_4", "k_8")


def table(name: str, sae: str = "k_4") -> str:
    return f"{SWEEP}/{sae}/{name}.json"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BenchWorkflow:
    """A sweep of two SAEs, judged by TPP. Not to be changed."""
    made = bench_workflow.make(tmp_path_factory.mktemp("bench"))
    made.succeed(table(TPP))
    return made


@pytest.fixture
def workflow(built: BenchWorkflow, tmp_path: Path) -> BenchWorkflow:
    copy = BenchWorkflow(copied(built, tmp_path).folder, built.config_file)
    copy.ground = built.ground
    return copy


def lay_over(workflow: BenchWorkflow, over: dict[str, Any]) -> None:
    base = bench_workflow.config_of(workflow.ground, workflow.folder / "text")
    workflow.write(merged({"models": {MODEL: over}}, base))


def figures(workflow: BenchWorkflow, name: str, sae: str = "k_4") -> dict[str, Any]:
    (row,) = json.loads(workflow.read(table(name, sae)))
    return row[name]


def stored(workflow: BenchWorkflow, kind: str) -> set[str]:
    folder = workflow.folder / "results/.store" / kind
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def forget_evaluations(workflow: BenchWorkflow) -> None:
    shutil.rmtree(workflow.folder / "results/.store/evaluations")
    for path in (workflow.folder / SWEEP).rglob("sae_bench_*"):
        path.unlink()


def by_hand(workflow: BenchWorkflow, name: str, more: dict[str, str], folder: Path) -> list[Any]:
    """The metrics that `run_eval` gives, of an SAE that finds what it needs made by others and then
    of those of the sweep."""
    work, saes = folder / "by_hand", []
    # The first makes what the others find, and draws random numbers for it.
    for number, sae in enumerate((SAES[0], *SAES)):
        saes.append(folder / f"sae_{number}")
        shutil.copytree(workflow.folder / SWEEP / sae, saes[-1])
        config = json.loads((saes[-1] / "config.json").read_text())
        config["trainer"]["lm_name"] = workflow.ground.model
        (saes[-1] / "config.json").write_text(json.dumps(config))
    work.mkdir()
    job = {
        "evaluation": by_sae_bench(name).worker,
        "settings": bench_workflow.for_run_eval(name),
        "model": workflow.ground.model,
        "layer": bench_ground.LAYER,
        "d_model": bench_ground.D_MODEL,
        "device": "cpu",
        "threads": 1,
        "saes": [str(sae) for sae in saes],
        "setup": str(folder / "none"),
        "data": {key: str(place) for key, place in workflow.ground.data.items()},
        "work": str(work),
    }
    (work / "job.json").write_text(json.dumps(job))
    subprocess.run(
        [str(peers.SAE_BENCH), str(BY_HAND), str(work / "job.json")],
        cwd=work,
        env={
            **os.environ,
            **workflow.ground.environment,
            "HF_DATASETS_CACHE": str(work / "cache"),
            **more,
        },
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return [
        json.loads((work / f"{number}.json").read_text())["eval_result_metrics"]
        for number in range(1, 1 + len(SAES))
    ]


def same(name: str, ours: dict[str, Any], theirs: dict[str, dict[str, Any]]) -> None:
    """The LM's own figures come from whichever call made the probes."""
    groups = [part for group, part in theirs.items() if group != "llm"]
    expected = {key: value for part in groups for key, value in part.items()}
    compared = {key: value for key, value in ours.items() if not key.startswith("llm_")}
    assert compared, name
    for key, value in compared.items():
        # A mean of float32 numbers in the order in which a judge's answers came in.
        tolerance = 1e-6 if by_sae_bench(name).has_judge else 0.0
        assert value == pytest.approx(expected[key], rel=tolerance, abs=0, nan_ok=True), (name, key)


@pytest.mark.acceptance
def test_an_evaluation_is_sae_benchs_own(built: BenchWorkflow, tmp_path: Path) -> None:
    for sae, metrics in zip(SAES, by_hand(built, TPP, {}, tmp_path), strict=True):
        same(TPP, figures(built, TPP, sae), metrics)
    (row,) = json.loads(built.read(table(TPP)))
    made = row["evaluations"][TPP]
    assert made["software"]["sae-bench"] == "0.6.0"
    assert made["settings"]["random_seed"] == 42
    assert set(made["data"]) == {bench_ground.BIOS, bench_ground.AMAZON}
    details = json.loads(built.read(f"{SWEEP}/k_4/{TPP}_details.json"))
    names = {each["dataset_name"].split("_tpp")[0] for each in details["details"]}
    assert names == set(made["settings"]["dataset_names"])
    assert f"{table(TPP)}: current" in _why(built)


def _why(workflow: BenchWorkflow) -> str:
    command = workflow.command("why")[0].replace("snakemake", "python")
    done = subprocess.run(
        [command, "-m", "saemake", "why", table(TPP), "--configfile", workflow.config_file],
        cwd=workflow.folder,
        env=workflow.environment(PYTHONPATH=str(PROJECT)),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.long
def test_a_kill_loses_no_sae_and_changes_no_figure(workflow: BenchWorkflow) -> None:
    """Killed after the first SAE: a second run judges the other alone."""
    before = {sae: workflow.read(table(TPP, sae)) for sae in SAES}
    forget_evaluations(workflow)
    with subprocess.Popen(
        workflow.command(table(TPP)),
        cwd=workflow.folder,
        env=workflow.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "1 of 2 judged" in line:
                os.killpg(process.pid, signal.SIGKILL)
    kept = stored(workflow, "evaluations")
    assert len([name for name in kept if not name.startswith(".")]) == 1
    time.sleep(2)  # the worker ends with its parent
    said = workflow.succeed(table(TPP))
    assert "judging 1" in said
    assert {sae: workflow.read(table(TPP, sae)) for sae in SAES} == before


EACH = [name for name in SETTINGS if name != TPP]


@pytest.fixture(scope="module")
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as started:
        yield started


@pytest.mark.long
@pytest.mark.parametrize("name", EACH)
def test_each_evaluation_is_sae_benchs_own_in_any_order(
    workflow: BenchWorkflow, name: str, server: JudgeServer, tmp_path: Path
) -> None:
    judge = {"base_url": server.url, "model": "some-model", "key_variable": "SOME_KEY"}
    settings = SETTINGS[name]
    if by_sae_bench(name).has_judge:
        settings = {**settings, "judge": judge}
    lay_over(workflow, {"evaluations": {name: settings}})
    keys = {"SOME_KEY": "secret"}
    workflow.succeed(table(name), **keys)
    before = {sae: workflow.read(table(name, sae)) for sae in SAES}
    hand = {"OPENAI_BASE_URL": server.url}
    for sae, metrics in zip(SAES, by_hand(workflow, name, hand, tmp_path / "hand"), strict=True):
        same(name, figures(workflow, name, sae), metrics)
    asked = len(server.asked)
    forget_evaluations(workflow)
    reverse = {"architectures": {"top_k": {"sweep": [8, 4]}}}
    lay_over(workflow, merged({"evaluations": {name: settings}}, reverse))
    workflow.succeed(table(name), **keys)
    assert {sae: workflow.read(table(name, sae)) for sae in SAES} == before
    assert len(server.asked) == asked
    secrets = [path for path in workflow.folder.rglob("*") if path.is_file()]
    assert not any(b"secret" in path.read_bytes() for path in secrets if path.suffix != ".yaml")


@pytest.mark.long
@pytest.mark.parametrize(
    ("over", "same_figures"),
    [
        ({"evaluations": {TPP: {"random_seed": 7}}}, False),
        ({"evaluations": {TPP: {"train_set_size": 12}}}, False),
        ({"dtype": "bfloat16"}, False),
        ({"evaluations": {TPP: {"keep_setup": False}}}, True),
    ],
    ids=["seed", "size", "dtype", "not kept"],
)
def test_what_a_setup_depends_on_makes_it_anew(
    workflow: BenchWorkflow, over: dict[str, Any], same_figures: bool
) -> None:
    before, setups = figures(workflow, TPP), stored(workflow, "setups")
    forget_evaluations(workflow)
    if same_figures:
        shutil.rmtree(workflow.folder / "results/.store/setups")
        shutil.rmtree(workflow.folder / LAYER / "setups")
        setups = set()
    lay_over(workflow, over)
    workflow.succeed(table(TPP))
    assert (figures(workflow, TPP) == before) == same_figures
    assert len(stored(workflow, "setups") - setups) == (0 if same_figures else 1)


@pytest.mark.long
def test_reseeds_give_noise_and_bars(workflow: BenchWorkflow) -> None:
    lay_over(workflow, {"evaluations": {TPP: {"reseeds": 2}}})
    figure = f"{LAYER}/figures/{TPP}_vs_l0.pdf"
    workflow.succeed(table(TPP))
    (row,) = json.loads(workflow.read(table(TPP)))
    noise = row["noise"][TPP]["tpp_threshold_20_total_metric"]
    assert noise["seeds"] == 3
    assert noise["standard_deviation"] > 0
    assert noise["smallest_difference"] == pytest.approx(
        2.776445 * noise["standard_deviation"] * (2 / 3) ** 0.5, rel=1e-5
    )
    suite = {"architectures": ["top_k"], "evaluations": ["dictionary_learning"]}
    lay_over(workflow, {"evaluations": {TPP: {"reseeds": 2}}, "suite": suite})
    workflow.succeed(figure)
    assert workflow.read(figure).startswith(b"%PDF")


@pytest.mark.long
def test_a_damaged_setup_is_not_read(workflow: BenchWorkflow) -> None:
    (setup,) = (workflow.folder / "results/.store/setups").iterdir()
    probes = next(path for path in setup.rglob("*.pkl"))
    probes.write_bytes(probes.read_bytes()[:-1])
    forget_evaluations(workflow)
    said = workflow.fail(table(TPP))
    assert "the store has no setup of" in said
    (workflow.folder / LAYER / "setups" / TPP / "seed_42.json").unlink()
    workflow.succeed(table(TPP))


SAE_PROBES = "sae_bench_sae_probes"


@pytest.mark.long
def test_checkpoints_and_pca_are_judged_too(workflow: BenchWorkflow) -> None:
    """By an evaluation that reads no data of ours. All components of PCA tell no less apart than
    one direction of an SAE that has seen nothing."""
    lay_over(workflow, {"architectures": {"top_k": {"checkpoints": [0.0, 0.5]}}})
    tables = [f"{SWEEP}/k_4/checkpoints/{SAE_PROBES}.json", f"{LAYER}/baselines/{SAE_PROBES}.json"]
    workflow.succeed(*tables)
    checkpoints, pca = (json.loads(workflow.read(path)) for path in tables)
    assert [row["steps"] for row in checkpoints] == [0, 78]
    assert [row["architecture"] for row in pca] == ["pca"]
    for row in (*checkpoints, *pca):
        assert 0 < row[SAE_PROBES]["sae_top_1_test_accuracy"] <= 1
    assert len({row["evaluations"][SAE_PROBES]["sha256"] for row in (*checkpoints, *pca)}) == 3


@pytest.mark.long
def test_published_saes_are_judged_too(workflow: BenchWorkflow, tmp_path: Path) -> None:
    """A published SAE with the bytes of one that is built here has its figures."""
    place = f"TopK_{MODEL}/resid_post_layer_{bench_ground.LAYER}/trainer_0"
    row = {
        "model": MODEL,
        "layer": bench_ground.LAYER,
        "width": 512,
        "architecture": "top_k",
        "sparsity": 4,
        "repository": "someone/saes",
        "path": place,
        "core_l0": 4,
        "core_loss_recovered": 0.5,
    }
    write_catalogue(tmp_path / "catalogue.csv", [row])
    base = bench_workflow.config_of(workflow.ground, workflow.folder / "text")
    workflow.write({**base, "published": {"catalogue": str(tmp_path / "catalogue.csv")}})
    folder = workflow.folder / SWEEP / "k_4"
    files = {f"{place}/{name}": (folder / name).read_bytes() for name in ("ae.pt", "config.json")}
    judged = f"{SWEEP.replace('results', 'published')}/k_4/{TPP}.json"
    with LocalHub() as hub:
        hub.commit("model", "someone/saes", files)
        workflow.succeed(judged, **hub.environment(workflow.ground.root / "hf"))
    (row,) = json.loads(workflow.read(judged))
    assert row[TPP] == figures(workflow, TPP)
    assert (workflow.folder / judged).with_name(f"{TPP}_details.json").is_file()


@pytest.mark.long
def test_unlearning_goes_through_the_workflow(tmp_path: Path) -> None:
    """With a small LM under the name of one that its code knows."""
    ground = chat_ground.make(tmp_path / "ground", BASE, ())
    folder = tmp_path / "project"
    folder.mkdir()
    wrapper = tmp_path / "python"
    wrapper.write_text(
        "#!/bin/sh\n"
        f'hub="$HF_HOME/hub"; known="$hub/models--EleutherAI--{ground.model}"\n'
        f'[ -e "$known" ] || ln -s models--google--{CHAT} "$known"\n'
        f'exec {peers.SAE_BENCH} {AS_GEMMA} "$@"\n'
    )
    wrapper.chmod(0o755)
    workflow = BenchWorkflow(folder, "bench.yaml")
    workflow.ground = ground
    name = "sae_bench_unlearning"
    model = {
        "transformer_lens": f"google/{CHAT}",
        "evaluations": {name: bench_workflow.UNLEARNING},
    }
    base = bench_workflow.config_of(ground, tmp_path / "text")
    workflow.write(merged({"models": {MODEL: model}}, base))
    environment = {"SAEMAKE_SAE_BENCH_PYTHON": str(wrapper)}
    workflow.succeed(table(name), **environment)
    before = {sae: workflow.read(table(name, sae)) for sae in SAES}
    scores = [figures(workflow, name, sae)["unlearning_score"] for sae in SAES]
    assert all(0 <= score <= 1 for score in scores)
    forget_evaluations(workflow)
    workflow.succeed(table(name), **environment)
    assert {sae: workflow.read(table(name, sae)) for sae in SAES} == before
