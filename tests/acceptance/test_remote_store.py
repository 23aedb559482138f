"""A store that is shared, through the workflow: a second clone builds the demo's figure without
training; an object that is damaged is refused; a store that fails slows nothing. S3 is moto's
server, the Hub is tests/hub_server.py."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import boto3
import pytest
from conftest import LAYER, copied
from hub_server import LocalHub
from moto.server import ThreadedMotoServer

from saemake.base.remote import Remote
from saemake.base.store import Store, sha256

pytestmark = pytest.mark.acceptance

BUCKET, URL = "lab", "s3://lab/suites/demo"
FIGURE = f"{LAYER}/figures/loss_recovered_vs_l0.svg"
SUITE = {"architectures": ["top_k"], "evaluations": ["dictionary_learning"]}
DEMO = {"models": {"demo": {"suite": SUITE}}}
ONE = f"{LAYER}/top_k/256/k_4/ae.pt"
TOKEN, SECRET = "hf_thetokenofatest", "thesecretofatest"


class S3:
    """moto's server on loopback, with one bucket."""

    def __init__(self):
        self.server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self.server.start()
        host, port = self.server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        self.environment = of_s3(self.endpoint)
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self.client.create_bucket(Bucket=BUCKET)

    def keys(self, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def read(self, key):
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def write(self, key, content):
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)


def of_s3(endpoint):
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }


@pytest.fixture(scope="module")
def s3():
    made = S3()
    yield made
    made.server.stop()


def configure(workflow, url, push=False, over=DEMO):
    workflow.configure({**over, "store": {"remote": url, "push": push}})


def trained(workflow):
    """How many SAEs the train jobs trained, in all."""
    logs = (workflow.folder / "logs/train").rglob("*.log")
    found = [re.findall(r"in the store; training (\d+)", log.read_text()) for log in logs]
    return sum(int(count) for counts in found for count in counts)


def judged(workflow):
    """How many evaluations the jobs made, in all."""
    logs = (workflow.folder / "logs/evaluate").rglob("*.log")
    found = [re.findall(r"(\d+) of \d+ evaluations are missing", log.read_text()) for log in logs]
    return sum(int(count) for counts in found for count in counts)


def sums(workflow):
    return {
        str(path.relative_to(workflow.folder)): sha256(path)
        for path in sorted(workflow.folder.glob("results/demo/**/*"))
        if path.name in ("ae.pt", "metrics.json", "pca.safetensors", "loss_recovered_vs_l0.svg")
    }


def saes(workflow):
    return {path: sum_ for path, sum_ in sums(workflow).items() if path.endswith("/ae.pt")}


def logged(workflow):
    return "".join(path.read_text() for path in (workflow.folder / "logs").rglob("*.log"))


@pytest.fixture(scope="module")
def lab(s3, begun, tmp_path_factory):
    """Who made the suite, and pushed it."""
    workflow = copied(begun, tmp_path_factory.mktemp("lab"))
    configure(workflow, URL, push=True)
    said = workflow.succeed(FIGURE, "--cores", "2", **s3.environment)
    assert "shared store" not in said
    assert trained(workflow) > 0
    return workflow


@pytest.fixture
def clone(tmp_path, fresh):
    """Who has nothing yet."""
    configure(fresh, URL)
    return fresh


def test_a_second_clone_builds_the_figure_without_training(s3, lab, clone):
    entries = [key for key in s3.keys("suites/demo/") if key.endswith("/entry.json")]
    assert {key.split("/")[2] for key in entries} == {"saes", "evaluations"}
    # The baselines were made before the lab had a shared store.
    assert re.search(r"pushed [1-9]\d* entries", store(lab, s3.environment, "--push"))
    started = time.monotonic()
    said = clone.succeed(FIGURE, **s3.environment)
    print(f"\nthe figure from the shared store: {time.monotonic() - started:.0f} s")
    assert trained(clone) == judged(clone) == 0
    assert re.search(r"fetched \d of \d saes from s3://lab/suites/demo \(", said), said
    assert sums(clone) == sums(lab)
    assert SECRET not in said + logged(clone) + logged(lab)


def store(workflow, environment, *options):
    """What `saemake store` says."""
    command = [sys.executable, "-m", "saemake", "store", "--configfile", "small.yaml", *options]
    return subprocess.run(
        command,
        cwd=workflow.folder,
        env=workflow.environment(**environment),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def test_the_store_is_counted(s3, lab):
    said = store(lab, s3.environment)
    here = len(list((lab.folder / "results/.store/saes").iterdir()))
    assert f"{URL}: {here} saes; of the {here} here {here} are there" in said


def test_a_damaged_object_is_refused_and_the_sae_trained(s3, lab, begun, tmp_path):
    for key in s3.keys("suites/demo/saes/"):
        s3.write(key.replace("/demo/", "/damaged/"), s3.read(key))
    recipe = json.loads((lab.folder / ONE).with_name("provenance.json").read_text())["recipe_hash"]
    damaged = f"suites/damaged/saes/{recipe}/{sha256(lab.folder / ONE)}"
    content = s3.read(damaged)
    s3.write(damaged, content[:-1] + bytes([content[-1] ^ 1]))
    workflow = copied(begun, tmp_path)
    configure(workflow, "s3://lab/suites/damaged", push=True)
    said = workflow.succeed(ONE, **s3.environment)
    refused = [line for line in said.splitlines() if "it is not used" in line]
    assert len(refused) == 1
    assert f"s3://lab/suites/damaged/saes/{recipe}: ae.pt is damaged" in refused[0]
    assert trained(workflow) == 1
    assert saes(workflow).items() <= saes(lab).items()
    assert s3.read(damaged) == content  # it was pushed again


def test_two_writers_at_once(s3, lab, begun, tmp_path, monkeypatch):
    writers = [copied(begun, tmp_path / name) for name in ("first", "second")]
    for each in writers:
        configure(each, "s3://lab/two", push=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda each: each.succeed(ONE, **s3.environment), writers))
    assert sums(writers[0]) == sums(writers[1])
    assert saes(writers[0]).items() <= saes(lab).items()
    recipe = json.loads((lab.folder / ONE).with_name("provenance.json").read_text())["recipe_hash"]
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    reader = Store(tmp_path / "reader", "saes", Remote("s3://lab/two", False, tmp_path))
    reader.bring({recipe: recipe})
    assert reader.sum_of(recipe, "ae.pt") == sha256(lab.folder / ONE)


class Silent:
    """A socket that takes connections and never answers."""

    def __init__(self, listening):
        self.listening = listening
        self.environment = of_s3(f"http://127.0.0.1:{listening.getsockname()[1]}")

    def was_asked(self):
        self.listening.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.listening.accept()
            return True
        return False


@pytest.fixture
def silent():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Silent(listening)


def test_a_dry_run_and_a_plan_ask_nothing(silent, clone):
    clone.succeed(FIGURE, "-n", **silent.environment)
    command = [sys.executable, "-m", "saemake", "plan", FIGURE, "--configfile", "small.yaml"]
    environment = clone.environment(**silent.environment)
    subprocess.run(command, cwd=clone.folder, env=environment, check=True)
    assert not silent.was_asked()


def test_a_store_that_never_answers_is_said_once(lab, begun, silent, tmp_path):
    workflow = copied(begun, tmp_path)
    configure(workflow, URL, push=True)
    metrics = f"{LAYER}/top_k/256/k_4/metrics.json"
    said = workflow.succeed(ONE, metrics, **silent.environment)
    lines = [line for line in said.splitlines() if "shared store" in line]
    assert len(lines) == 1, said
    assert "no answer in 10 s; this run goes on without it; push what it makes later" in lines[0]
    assert SECRET not in said + logged(workflow)
    assert trained(workflow) == 2
    assert saes(workflow).items() <= saes(lab).items()
    # With everything here, nothing is asked.
    (workflow.folder / ONE).unlink()
    while silent.was_asked():
        pass
    workflow.succeed(ONE, **silent.environment)
    assert not silent.was_asked()


@contextlib.contextmanager
def no_rights(s3):
    """moto asks for rights, which nobody has."""
    reset_auth(s3, b"0")
    yield
    reset_auth(s3, b"inf")


def reset_auth(s3, after):
    """From which request on moto asks for rights."""
    place, plain = f"{s3.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
    urlopen(Request(place, after, plain, method="POST"))


def test_no_bucket_and_no_rights_are_told_apart(s3, tmp_path, monkeypatch, capsys):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    for bucket, words, circumstances in (
        ("nobody", "does not exist, make it first", contextlib.nullcontext()),
        (BUCKET, "no rights", no_rights(s3)),
    ):
        remote = Remote(f"s3://{bucket}/x", True, tmp_path)
        with circumstances:
            Store(tmp_path, "saes", remote).bring({"a" * 64: "a" * 64})
        line = capsys.readouterr().err
        assert f"s3://{bucket}/x: {words}" in line
        assert SECRET not in line


def test_the_hub(lab, begun, tmp_path):
    url = "hf://datasets/lab/suite"
    with LocalHub() as hub:
        hub.commit("dataset", "lab/suite", {"README.md": b""})
        hub.grant(TOKEN, "lab", may_write={"lab"})
        environment = {**hub.environment(tmp_path / "home"), "HF_TOKEN": TOKEN}
        maker, taker = (copied(each, tmp_path / str(n)) for n, each in enumerate((lab, begun)))
        configure(maker, url)
        assert re.search(r"pushed [1-9]\d* entries", store(maker, environment, "--push"))
        assert len(hub.commits("dataset", "lab/suite")) == 2  # all entries are one commit
        configure(taker, url)
        said = taker.succeed(ONE, **environment)
        assert trained(taker) == 0
        assert "fetched 2 of 2 saes from hf://datasets/lab/suite" in said
        assert saes(taker).items() <= saes(lab).items()
        assert TOKEN not in said + logged(taker)
