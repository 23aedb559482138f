"""Nodes without a network: one target fetches all, and then everything works in a network namespace
that has no route to any host. What was not fetched is one line, within seconds."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import DEMO_LM, PROJECT, Workflow, copied, merged, write_catalogue
from hub_server import LocalHub
from workflow.test_hub import LM, TEXT, configure, text_files

# A network of its own, with no device that is up: as root, or as root of its own user namespace.
ALONE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
FETCHED, SWEEP = "fetched/hubbed.ok", "results/hubbed/L3/top_k/256"
PUBLISHED, PLACE = "someone/saes", "TopK_hubbed/resid_post_layer_3/trainer_0"
# Of a refusal, with the start of python and Snakemake on a busy machine. A retry takes minutes.
SECONDS = 90


def _can_be_alone() -> bool:
    return (
        shutil.which("unshare") is not None
        and not subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode
    )


pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(not _can_be_alone(), reason="no network namespace can be made here"),
]


def alone(workflow: Workflow, command: list[str], **environment: str) -> tuple[int, str, float]:
    """Run a command with no network; its status, all output, and seconds."""
    started = time.monotonic()
    done = subprocess.run(
        [*ALONE, *command],
        cwd=workflow.folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, time.monotonic() - started


def builds(workflow: Workflow, *targets: str, **environment: str) -> str:
    status, output, _ = alone(workflow, workflow.command(*targets), **environment)
    assert status == 0, output
    return output


def refuses(workflow: Workflow, *targets: str, **environment: str) -> str:
    status, output, seconds = alone(workflow, workflow.command(*targets), **environment)
    assert status != 0, output
    assert "Traceback" not in output
    assert "asking again" not in output
    assert seconds < SECONDS
    return output


def configure_all(workflow: Workflow, **over: Any) -> None:
    """The model and the text of the Hub, and `over`. All evaluations are on that text."""
    configure(workflow)
    core = {"text": None, "batch_contexts": 8, "reconstruction_batches": 1, "variance_batches": 2}
    model = {"hubbed": {"evaluations": {"sae_bench_core": core}}}
    content = yaml.safe_load((workflow.folder / workflow.config_file).read_text())
    workflow.write(merged({"models": model, **over}, content))


@pytest.fixture(scope="module")
def hub() -> Iterator[LocalHub]:
    with LocalHub() as local:
        local.commit("model", LM, {path.name: path.read_bytes() for path in DEMO_LM.iterdir()})
        local.commit("dataset", TEXT, text_files())
        yield local


@pytest.fixture(scope="module")
def on_node(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """What a node has after all was fetched elsewhere. Not to be changed."""
    made = Workflow(tmp_path_factory.mktemp("node"))
    configure_all(made)
    made.succeed(FETCHED, **hub.environment(made.folder / "hf"))
    return made


@pytest.fixture
def node(on_node: Workflow, tmp_path: Path) -> Workflow:
    return copied(on_node, tmp_path)


def environment(hub: LocalHub, workflow: Workflow, offline: str) -> dict[str, str]:
    return {**hub.environment(workflow.folder / "hf"), "HF_HUB_OFFLINE": offline}


def test_the_whole_way_with_no_route_to_any_host(hub: LocalHub, node: Workflow) -> None:
    """Also where HF_HUB_OFFLINE is not set, and for the LM in a notebook."""
    commits = {
        kind: hub.commits(kind, name)[0] for kind, name in (("model", LM), ("dataset", TEXT))
    }
    found = json.loads(node.read(FETCHED))
    assert found["results/hubbed/model.json"] == commits["model"]
    assert found["results/hubbed/tokens/train/manifest.json"] == commits["dataset"]
    moved = hub.commit("model", LM, {"config.json": b"{}"}, "moved on")
    asked = environment(hub, node, "0")
    builds(node, f"{SWEEP}/metrics.json", f"{SWEEP}/k_4/features.html", **asked)
    builds(
        node, "results/hubbed/L3/figures/loss_recovered_vs_l0.pdf", **environment(hub, node, "1")
    )
    assert "Nothing to be done" in builds(node, FETCHED, **asked)
    config = json.loads(node.read(f"{SWEEP}/k_4/config.json"))
    assert config["trainer"]["lm_name"] == LM
    loads_lm(node, f"{SWEEP}/k_4", **asked)
    assert moved != commits["model"]


def loads_lm(workflow: Workflow, sae: str, **environment: str) -> None:
    """As in a notebook."""
    program = f"""
import saemake
sae = saemake.load("{sae}")
print(sae.lm().model.config.num_hidden_layers, *sae.activations("Once upon a time").tokens)
"""
    status, output, _ = alone(workflow, [sys.executable, "-c", program], **environment)
    assert status == 0, output
    assert output.splitlines()[-1].startswith("6 ")


@pytest.mark.parametrize("offline", ["0", "1"])
def test_what_was_not_fetched_is_one_line(hub: LocalHub, node: Workflow, offline: str) -> None:
    asked = environment(hub, node, offline)
    way_out = "where there is a network, type `saemake build fetched/"
    # Texts and models that nobody fetched, two in one run.
    configure(node, demo_text="far")
    told = refuses(node, "results/demo/tokens/train/manifest.json", **asked)
    assert f"saemake: dataset '{TEXT}' cannot be reached (" in told
    assert f"{way_out}demo.ok` or" in told
    shutil.rmtree(node.folder / "hf")
    told = refuses(node, f"{SWEEP}/k_4/ae.pt", **asked)
    assert f"saemake: model '{LM}' cannot be reached (" in told
    assert f"{way_out}hubbed.ok` or `hf download {LM} --revision " in told
    told = refuses(node, FETCHED, **asked)
    assert f"saemake: model '{LM}' cannot be reached (" in told


def test_an_emptied_cache_is_filled_by_the_same_target(hub: LocalHub, node: Workflow) -> None:
    shutil.rmtree(node.folder / "hf")
    with_network = hub.environment(node.folder / "hf")
    assert "Built" in node.succeed(FETCHED, **with_network)
    builds(node, f"{SWEEP}/k_4/ae.pt", **environment(hub, node, "1"))


def test_published_saes(hub: LocalHub, node: Workflow, tmp_path: Path) -> None:
    builds(node, f"{SWEEP}/k_4/ae.pt", **environment(hub, node, "1"))
    files = {
        f"{PLACE}/{name}": node.read(f"{SWEEP}/k_4/{name}") for name in ("ae.pt", "config.json")
    }
    commit = hub.commit("model", PUBLISHED, files)
    row = {"model": "hubbed", "layer": 3, "width": 256, "architecture": "top_k", "sparsity": 4}
    write_catalogue(tmp_path / "catalogue.csv", [{**row, "repository": PUBLISHED, "path": PLACE}])
    configure_all(node, published={"catalogue": f"{tmp_path}/catalogue.csv"})
    target, table = (
        "fetched/hubbed/published.ok",
        "published/hubbed/L3/top_k/256/k_4/comparison.json",
    )
    told = refuses(node, str(Path(table).with_name("ae.pt")), **environment(hub, node, "0"))
    assert f"saemake: the published '{PUBLISHED}' cannot be reached (" in told
    assert f"type `saemake build {target}`, then run" in told
    node.succeed(target, **hub.environment(node.folder / "hf"))
    assert json.loads(node.read(target))[f"published/repositories/{PUBLISHED}.json"] == commit
    shutil.rmtree(node.folder / "hf" / "hub" / "models--someone--saes")
    builds(node, table, **environment(hub, node, "0"))
    assert json.loads(node.read(table))["verdict"] == "identical"
    # Its LM at the commit that it was judged with, whatever the cache says of the branch.
    shutil.rmtree(node.folder / "hf" / "hub" / f"models--{LM.replace('/', '--')}" / "refs")
    loads_lm(node, str(Path(table).parent), **environment(hub, node, "0"))


@pytest.mark.long
def test_a_fresh_clone_fetches_and_builds_smollm2_and_the_demo(tmp_path: Path) -> None:
    """By `saemake build`, in a clone of what is committed."""
    clone = Workflow(tmp_path / "clone")
    subprocess.run(["git", "clone", "-q", str(PROJECT), str(clone.folder)], check=True)
    (clone.folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    saemake = [sys.executable, "-m", "saemake", "build"]
    of_smollm2 = ["--configfile", "config/smollm2.yaml"]
    asked = {
        "PYTHONPATH": str(clone.folder),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
    }
    for words in (["fetched/demo.ok"], ["fetched/smollm2-135m.ok", *of_smollm2]):
        subprocess.run(
            [*saemake, *words], cwd=clone.folder, env={**os.environ, **asked}, check=True
        )
    for words in (
        ["demo/L3/top_k/1k/k_8"],
        ["results/smollm2-135m/L8/top_k/2k/k_24/metrics.json", *of_smollm2],
    ):
        status, output, seconds = alone(clone, [*saemake, *words], **asked)
        assert status == 0, output
        print(f"\n{words[0]}: {seconds:.0f} s with no network")
