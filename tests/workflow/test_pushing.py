"""A suite is exported and pushed by the rules: the real client against a Hub on this machine."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
import yaml
from conftest import copied
from hub_server import LocalHub
from safetensors.torch import load

from saemake.base.store import sha256

pytestmark = pytest.mark.acceptance

REPO = "somebody/saes"
PUSH = f"published-to/{REPO}/demo"
SAE = "L3/top_k/256/k_4"


@pytest.fixture(scope="module")
def workflow(begun, tmp_path_factory):
    """What a push of a suite of two SAEs needs, all but the push."""
    made = copied(begun, tmp_path_factory.mktemp("suite"))
    made.configure({"models": {"demo": {"suite": {"architectures": ["top_k"]}}}})
    made.succeed(f"{PUSH}/README.md", f"saelens/demo/{SAE}/cfg.json")
    return made


@pytest.fixture
def hub():
    with LocalHub() as made:
        made.grant("hf_right", "somebody", {"somebody"})
        yield made


def test_the_card_says_what_it_is_and_how_it_is_rebuilt(workflow):
    card = workflow.read(f"{PUSH}/README.md").decode()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "saemake"
    assert "license" not in front
    row = json.loads(workflow.read(f"results/demo/{SAE}/metrics.json"))[0]
    loss_recovered = row["dictionary_learning"]["frac_recovered"]
    assert f"| {SAE} | 4 | {loss_recovered:.4g} |" in card
    assert "](L3/figures/loss_recovered_vs_l0.svg)" in card
    assert "snakemake --configfile saemake.yaml --cores 1" in card
    provenance = json.loads(workflow.read(f"results/demo/{SAE}/provenance.json"))
    assert f"torch {provenance['software']['torch']}" in card
    assert provenance["lm"]["sha256"]["model.safetensors"] in card
    assert str(workflow.folder) not in card
    # The command that it gives finds nothing to do here.
    again = [f"{PUSH}/saemake.yaml" if a == "small.yaml" else a for a in workflow.command("-n")]
    done = subprocess.run(
        again, cwd=workflow.folder, env=workflow.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr


def test_an_export_is_the_sae(workflow):
    weights = load(workflow.read(f"saelens/demo/{SAE}/sae_weights.safetensors"))
    assert {name: list(tensor.shape) for name, tensor in weights.items()} == {
        "W_enc": [128, 256],
        "W_dec": [256, 128],
        "b_enc": [256],
        "b_dec": [128],
    }
    cfg = json.loads(workflow.read(f"saelens/demo/{SAE}/cfg.json"))
    assert (cfg["architecture"], cfg["k"]) == ("topk", 4)
    assert cfg["metadata"]["hook_name"] == "blocks.3.hook_resid_post"


def killed_while_sending(workflow, hub, environment):
    """A push whose uploads do not get through, killed with all that it started."""
    hub.drop("/cdn/upload", 1000, times=None)
    running = subprocess.Popen(
        workflow.command(f"{PUSH}/receipt.json"),
        cwd=workflow.folder,
        env=workflow.environment(**environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    while not any(method == "PUT" for method, _, _ in hub.requests):
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    hub.mend()


def sends(hub, since):
    return [path for method, path, _ in hub.requests[since:] if method in ("POST", "PUT")]


def test_a_push_that_is_killed_goes_on_and_the_next_sends_nothing(workflow, hub, tmp_path):
    environment = {**hub.environment(tmp_path), "HF_TOKEN": "hf_right"}
    killed_while_sending(workflow, hub, environment)
    assert set(hub.files("model", REPO)) == {".gitattributes", "saemake.yaml"}
    assert not (workflow.folder / PUSH / "receipt.json").exists()

    said = workflow.succeed(f"{PUSH}/receipt.json", **environment)
    assert "hf_right" not in said
    assert "unchanged     1 files" in said  # the plan comes first
    (sent, of) = re.findall(rf"saemake: {REPO}: (\d+) of (\d+) files are on the Hub", said)[-1]
    assert sent == of
    assert int(sent) > 20
    receipt = json.loads(workflow.read(f"{PUSH}/receipt.json"))
    assert receipt["revision"] == hub.commits("model", REPO)[-1]
    there = hub.files("model", REPO)
    for path, described in receipt["files"].items():
        own = path in ("README.md", "saemake.yaml")
        here = workflow.folder / (PUSH if own else "results/demo") / path
        assert described["sha256"] == sha256(here)
        assert there[path] == here.read_bytes()
    files = {f"{SAE}/ae.pt", "L3/figures/loss_recovered_vs_l0.svg", "L3/report.html", "model.json"}
    assert files < set(there)

    asked = len(hub.requests)
    assert "nothing to send" in workflow.succeed(f"{PUSH}/receipt.json", **environment)
    assert not sends(hub, asked)
    assert hub.files("model", REPO) == there

    # Another card is another file.
    licensed = ["--config", "publishing={license: mit}"]
    said = workflow.fail(f"{PUSH}/receipt.json", *licensed, **environment)
    assert f"saemake: {REPO}: README.md there differs from {PUSH}/README.md here; to" in said
    assert not sends(hub, asked)
    assert hub.files("model", REPO) == there

    for folder in ("published-to", "logs", "results/demo"):
        for path in (workflow.folder / folder).rglob("*"):
            assert path.is_dir() or b"hf_right" not in path.read_bytes()
