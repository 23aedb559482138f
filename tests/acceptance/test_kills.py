"""Killed at random moments, a plain rerun of the same command ends with the same bytes: all eight
architectures, in turn, on the demo's LM and text."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import DEMO_IN_BFLOAT16, Workflow, merged

from saemake import architectures
from saemake.base.store import sha256

pytestmark = pytest.mark.long
SEED = 20261123
FILES = ("ae.pt", "config.json", "training.csv")
# About 5 s of training, with a snapshot each 0.2 s.
OVER = merged(
    {"models": {"demo": {"train_tokens": 102_400}}, "snapshots": {"every_seconds": 0.2}},
    DEMO_IN_BFLOAT16,
)

# What all have in common, built before anything is killed.
SHARED = [
    "results/demo/L3/baselines/metrics.json",
    *(
        f"results/demo/tokens/{use}/manifest.json"
        for use in ("train", "dictionary_learning", "sae_bench_core")
    ),
]


def target(name):
    return f"results/demo/L3/{name}/256/metrics.json"


def sums(workflow, name):
    """sha256 of what the sweep is made of; provenance.json holds times."""
    folder = workflow.folder / f"results/demo/L3/{name}/256"
    saes = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    paths = [sae / file for sae in saes for file in (*FILES, "metrics.json")]
    assert len(saes) == 2
    return {str(path.relative_to(folder)): sha256(path) for path in paths}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What each architecture gives when nothing interrupts it, and how long its run takes."""
    workflow = Workflow(tmp_path_factory.mktemp("straight"))
    workflow.configure(merged({"snapshots": {"every_seconds": 1e9}}, OVER))
    workflow.succeed(*SHARED)
    found, seconds = {}, {}
    for name in architectures.names():
        started = time.monotonic()
        workflow.succeed(target(name))
        seconds[name] = time.monotonic() - started
        found[name] = sums(workflow, name)
    return found, seconds


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    made = Workflow(tmp_path_factory.mktemp("killed"))
    made.configure(OVER)
    made.succeed(*SHARED)
    return made


def job_of(snakemake):
    """The process of the job's script, if one runs."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().decode()
                group = os.getpgid(int(folder.name))
            except (OSError, UnicodeDecodeError):
                continue
            if ".snakemake/scripts/" in command and group == snakemake.pid:
                return int(folder.name)
    return None


def kill_job(snakemake):
    job = job_of(snakemake)
    if job is None:
        return False
    os.kill(job, signal.SIGKILL)
    return True


def kill_snakemake(snakemake):
    """The job is told, and ends."""
    job = job_of(snakemake)
    os.kill(snakemake.pid, signal.SIGKILL)
    snakemake.wait()
    for _ in range(100):
        if job is None or not Path(f"/proc/{job}").exists():
            return True
        time.sleep(0.1)
    raise AssertionError(f"the job {job} runs on without snakemake")


def wait_for_training(log, running):
    """Until a job's log says that it trains, or the run ends."""
    while running.poll() is None:
        if log.exists() and "are in the store; training" in log.read_text():
            return
        time.sleep(0.05)


def to_group(number):
    def kill(snakemake):
        os.killpg(snakemake.pid, number)
        return True

    return kill


def to_job(number):
    def kill(snakemake):
        job = job_of(snakemake)
        if job is not None:
            os.kill(job, number)
        return job is not None

    return kill


WAYS = {
    "SIGKILL of the job": (kill_job, 25),
    "SIGKILL of snakemake with its group": (to_group(signal.SIGKILL), 25),
    "SIGKILL of snakemake alone": (kill_snakemake, 6),
    "Ctrl-C": (to_group(signal.SIGINT), 8),
    "SIGTERM of the job": (to_job(signal.SIGTERM), 8),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_plain_rerun_ends_with_the_same_bytes(straight, workflow, way):
    expected, seconds = straight
    kill, count = WAYS[way]
    moments = random.Random(f"{SEED} {way}")
    killed = resumed = 0
    for turn in range(count * 3):
        if killed == count:
            break
        name = architectures.names()[turn % len(expected)]
        for kind in ("saes", "evaluations", "snapshots"):
            shutil.rmtree(workflow.folder / "results/.store" / kind, ignore_errors=True)
        for other in architectures.names():
            shutil.rmtree(workflow.folder / "results/demo/L3" / other, ignore_errors=True)
        running = subprocess.Popen(
            workflow.command(target(name)),
            cwd=workflow.folder,
            env=workflow.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        log = workflow.folder / f"logs/train/demo/L3/{name}/256.log"
        if turn % 2:
            log.unlink(missing_ok=True)
            wait_for_training(log, running)
            time.sleep(moments.uniform(0, 0.2 * seconds[name]))
        else:
            time.sleep(moments.uniform(0.1, seconds[name]))
        hit = running.poll() is None and kill(running)
        running.wait(timeout=120)
        killed += hit
        output = workflow.succeed(target(name))
        resumed += hit and "going on at step" in log.read_text()
        assert sums(workflow, name) == expected[name], f"{way}, {name}: {output}"
    print(f"\n{way}: {killed} kills, {resumed} of them in training, all ended the same")
    assert killed == count
    assert resumed > count // 8
