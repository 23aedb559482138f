"""The profile for Slurm, on a real Slurm that is started on this machine: jobs run there, are told
to stop, come back and end with the bytes of a local run."""

import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import LAYER, PROJECT, Workflow, copied, merged
from slurm.cluster import Cluster, started, why_not

from saemake.base.store import sha256

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(why_not() is not None, reason=f"no Slurm here: {why_not()}"),
]
SWEEPS = ("top_k", "batch_top_k")
FILES = ("ae.pt", "config.json", "training.csv")
# A pass of about a minute: Slurm looks twice a minute at whose time is up.
LONG = {"models": {"demo": {"train_tokens": 409_600}}, "snapshots": {"every_seconds": 3600}}
ENDS_WITHIN_S = 600


@dataclass
class OnSlurm(Workflow):
    """The workflow with the profile for Slurm, on a cluster without accounting."""

    cluster: Cluster = field(kw_only=True)

    def command(self, *arguments: str) -> list[str]:
        command = super().command(*arguments)
        place = command.index("--workflow-profile")
        command[place + 1] = str(PROJECT / "profiles" / "slurm")
        cores = command.index("--cores")
        del command[cores : cores + 2]
        return [*command, "--slurm-status-command", "squeue", *QUICKLY]

    def environment(self, **more: str) -> dict[str, str]:
        return super().environment(**self.cluster.environment, **more)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdout=(self.folder / "said").open("w"),
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ended(self, running: subprocess.Popen[str], within_s: float = ENDS_WITHIN_S) -> str:
        """What a run said, once it has ended well."""
        status = running.wait(timeout=within_s)
        said = (self.folder / "said").read_text()
        assert status == 0, said
        assert "Traceback" not in said, said
        return said


QUICKLY = ["--slurm-init-seconds-before-status-checks", "2"]


@pytest.fixture(scope="module")
def cluster():
    with started() as made:
        yield made


@pytest.fixture(scope="module")
def prepared(begun, tmp_path_factory):
    """What all SAEs need, and the config of a long pass."""
    made = copied(begun, tmp_path_factory.mktemp("prepared"))
    made.configure(LONG)
    made.succeed("results/demo/tokens/train/manifest.json")
    return made


@pytest.fixture
def on_slurm(prepared, cluster, tmp_path):
    copied(prepared, tmp_path)
    return OnSlurm(tmp_path, cluster=cluster)


def trained(sweep):
    return f"{LAYER}/{sweep}/256/k_4/ae.pt"


def sums(workflow, sweep):
    """sha256 of what a sweep's SAEs are made of; provenance.json holds times."""
    folder = workflow.folder / LAYER / sweep / "256"
    paths = [sae / file for sae in sorted(folder.iterdir()) if sae.is_dir() for file in FILES]
    assert len(paths) == 2 * len(FILES)
    return {str(path.relative_to(folder)): sha256(path) for path in paths}


def wait_until(what, told, running):
    """Until `told()` is true, while a run goes on."""
    until = time.monotonic() + ENDS_WITHIN_S
    while not (seen := told()):
        assert running.poll() is None, f"the run has ended before {what}"
        assert time.monotonic() < until, what
        time.sleep(0.2)
    return seen


def training(workflow, sweep):
    """Whether a job is at its steps."""
    log = workflow.folder / f"logs/train/demo/L3/{sweep}/256.log"
    return log.exists() and "step 0 of" in log.read_text()


def job_of(cluster, sweep):
    """The id and the device of a running job; Slurm numbers devices from 0."""
    for job in cluster.jobs("RUNNING"):
        about = cluster.about(job)
        if f"rule_train__demo__{sweep}_" in about.get("Comment", ""):
            device = re.search(r"IDX:(\d+)", about.get("GRES", ""))
            return job, device and device[1]
    return None


def test_jobs_that_slurm_stops_end_with_the_bytes_of_a_local_run(prepared, on_slurm, tmp_path):
    """Two sweeps at once, on a device each. One is cancelled, the time of the other is up."""
    local = copied(prepared, tmp_path.with_name("local"))
    local.succeed(*map(trained, SWEEPS), "--cores", "2")
    cluster = on_slurm.cluster
    running = on_slurm.start(*map(trained, SWEEPS))
    for sweep in SWEEPS:
        wait_until(f"{sweep} trains", lambda sweep=sweep: training(on_slurm, sweep), running)
    (cancelled, first), (timed, second) = (job_of(cluster, sweep) for sweep in SWEEPS)
    assert {first, second} == {"0", "1"}
    assert cluster.about(timed)["TimeLimit"] == "00:11:00"
    cluster.ask("scancel", cancelled)
    # Two minutes, and the profile wants the signal two minutes before.
    cluster.ask("scontrol", "update", f"JobId={timed}", "TimeLimit=2")
    said = on_slurm.ended(running)
    for number, sweep in zip((cancelled, timed), SWEEPS, strict=True):
        log = f"logs/train/demo/L3/{sweep}/256.log"
        assert re.search(
            rf"saemake: job \d+: Slurm's job {number} was told to stop: .*; its log is {log},"
            rf" \S+/{number}\.log\n",
            said,
        ), said
        assert "going on at step" in (on_slurm.folder / log).read_text()
        assert sums(on_slurm, sweep) == sums(local, sweep)
    assert len(re.findall(r"saemake: job \d+ is tried again\n", said)) == 2
    assert "failed" not in said


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--default-resources", "slurm_partition=mian", "mem_mb=2000", "runtime=10"],
            "Slurm does not take the job: invalid partition specified: mian",
        ),
        (
            ["--set-resources", "train__demo__top_k:gpu=3"],
            "Slurm does not take the job: Requested node configuration is not available",
        ),
    ],
)
def test_what_the_cluster_does_not_have(on_slurm, options, line):
    output = on_slurm.fail(trained("top_k"), *options)
    assert re.search(rf"saemake: job \d+: {re.escape(line)}.*; docs/slurm.md says", output), output
    assert output.count("does not take the job") == 2, output  # at once, and as the last word
    assert output.splitlines()[-1].startswith("saemake: train demo/L3/top_k/256 ")


def last_job_of(cluster, rule):
    """What is known of the last job of a rule or group; None if there was none."""
    jobs = [cluster.about(job) for job in sorted(cluster.jobs("all"), key=int)]
    of_rule = [about for about in jobs if about.get("Comment", "").startswith(f"rule_{rule}")]
    return of_rule[-1] if of_rule else None


@pytest.mark.long
def test_evaluations_share_an_allocation(prepared, on_slurm):
    """By `groups`: they have one GPU, one after the other. The job before asks by --gres."""
    on_slurm.configure(merged({"models": {"demo": {"train_tokens": 20_480}}}, LONG))
    cluster = on_slurm.cluster
    on_slurm.succeed(trained("top_k"), "--config", "slurm={device: h100, gpus: gres}")
    assert last_job_of(cluster, "train__demo__top_k")["TresPerNode"] == "gres:gpu:1"
    groups = ["--groups", "evaluate__demo__top_k=judge", "--group-components", "judge=2"]
    groups += ["--resources", "gpu=1", "--set-resource-scopes", "gpu=local"]
    on_slurm.succeed(f"{LAYER}/top_k/256/metrics.json", *groups)
    about = last_job_of(cluster, "judge")
    assert last_job_of(cluster, "evaluate__") is None
    assert about["TresPerJob"] == "gres:gpu:1"
    assert about["TimeLimit"] == "00:22:00"


@pytest.mark.long
def test_a_preempted_job_goes_on(prepared, on_slurm, tmp_path):
    """Slurm itself starts it again, as after a node's failure."""
    local = copied(prepared, tmp_path.with_name("local-alone"))
    local.succeed(trained("top_k"))
    running = on_slurm.start(trained("top_k"))
    wait_until("it trains", lambda: training(on_slurm, "top_k"), running)
    job, _ = job_of(on_slurm.cluster, "top_k")
    on_slurm.cluster.ask(
        *("sbatch", "--partition=urgent", "--exclusive", "--gpus=2", "--output=/dev/null"),
        "--wrap=sleep 5",
    )
    on_slurm.ended(running)
    assert int(on_slurm.cluster.about(job)["Restarts"]) == 1
    assert (
        "going on at step" in Path(on_slurm.folder, "logs/train/demo/L3/top_k/256.log").read_text()
    )
    assert sums(on_slurm, "top_k") == sums(local, "top_k")


def made_of(workflow):
    """sha256 of all that the demo's suite is made of; provenance and reports hold times."""
    folder = workflow.folder / "results/demo"
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    timed = ("provenance.json", "report.html")
    return {str(path.relative_to(folder)): sha256(path) for path in paths if path.name not in timed}


@pytest.mark.long
def test_the_demo_has_the_bytes_of_a_local_run(cluster, tmp_path):
    """The whole suite of the demo with its pages, from nothing."""
    local = Workflow(tmp_path.with_name("local-demo"))
    local.folder.mkdir()
    through_slurm = OnSlurm(tmp_path, cluster=cluster)
    for each in (local, through_slurm):
        each.write({"build": ["demo"]})
    local.succeed("all", "--cores", "2")
    through_slurm.ended(through_slurm.start("all"), within_s=3600)
    found, expected = made_of(through_slurm), made_of(local)
    assert found.keys() == expected.keys()
    assert [path for path in found if found[path] != expected[path]] == []
    assert sum(path.endswith("/ae.pt") for path in found) == 18
