"""Two runs on the same files: the second waits for the first, whatever happens to that one. And
what is on the screen after Ctrl-C."""

import fcntl
import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import LAYER, SMALL, raw_config

MODEL = "results/demo/model.json"
WAITS = "saemake: another run"


class Started:
    """A snakemake that runs, and what it has put on the screen."""

    def __init__(self, workflow, *targets):
        self.screen = workflow.folder / f"screen-{time.monotonic_ns()}.txt"
        with self.screen.open("w") as opened:
            self.process = subprocess.Popen(
                workflow.command(*targets),
                cwd=workflow.folder,
                env=workflow.environment(),
                stdout=opened,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Where the tests run in the background, a shell has had them ignore Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    @property
    def said(self):
        return self.screen.read_text()

    def until(self, words):
        for _ in range(600):
            if words in self.said:
                return
            assert self.process.poll() is None, self.said
            time.sleep(0.1)
        raise AssertionError(self.said)

    def ends_well(self):
        assert self.process.wait(300) == 0, self.said
        assert "Error" not in self.said, self.said


@contextmanager
def held(workflow, name):
    """What a run does that works on a model."""
    folder = workflow.folder / "results" / ".store" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"run-{name}.lock").open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        opened.write("4711\n")
        opened.flush()
        yield


def test_a_run_waits_and_says_for_whom(fresh):
    with held(fresh, "demo"):
        waiting = Started(fresh, MODEL)
        waiting.until(f"{WAITS} (process 4711) works on demo; waiting until it ends")
        time.sleep(1)
        assert waiting.process.poll() is None
        assert not (fresh.folder / MODEL).exists()
    waiting.ends_well()
    assert (fresh.folder / MODEL).exists()


def test_a_dry_run_does_not_wait(fresh):
    with held(fresh, "demo"):
        for look in ("-n", "--summary", "--dag", "--list-rules"):
            assert WAITS not in fresh.succeed(MODEL, look)


@pytest.mark.parametrize("option", ["--forcerun", "--prioritize", "--until"])
def test_what_an_option_asks_for_is_waited_for_too(fresh, option):
    with held(fresh, "pythia-70m-deduped"):
        waiting = Started(fresh, MODEL, option, "results/pythia-70m-deduped/model.json")
        waiting.until(f"{WAITS} (process 4711) works on pythia-70m-deduped")
        waiting.process.send_signal(signal.SIGTERM)
        waiting.process.wait(30)


def test_an_interrupt_while_the_snakefile_is_read_is_one_line(fresh):
    """The catalogue is a pipe that nobody writes to, so that reading it takes forever."""
    pipe = fresh.folder / "catalogue.csv"
    os.mkfifo(pipe)
    fresh.configure({"published": {"catalogue": str(pipe)}})
    reading = Started(fresh, MODEL)
    with pipe.open("w"):  # opens once it is read
        reading.process.send_signal(signal.SIGINT)
        assert reading.process.wait(30) != 0
    assert reading.said.splitlines()[-1] == "saemake: interrupted; the same command goes on"
    assert "Traceback" not in reading.said


def test_a_job_that_was_killed_says_so(workflow):
    run = Started(workflow, f"{LAYER}/top_k/256/k_4/ae.pt")
    run.until("at most about")
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            script = ".snakemake/scripts/" in (folder / "cmdline").read_text()
            if script and os.getpgid(int(folder.name)) == run.process.pid:
                os.kill(int(folder.name), signal.SIGKILL)
    assert run.process.wait(60) != 0
    assert "saemake: a job's process was ended by SIGKILL" in run.said, run.said
    assert "CalledProcessError" not in run.said


def test_an_interrupt_while_it_waits_is_one_line(fresh):
    with held(fresh, "demo"):
        waiting = Started(fresh, MODEL)
        waiting.until(WAITS)
        waiting.process.send_signal(signal.SIGINT)
        assert waiting.process.wait(30) != 0
    last = waiting.said.splitlines()[-1]
    assert last == "saemake: interrupted while it waited; nothing was started"
    assert "Traceback" not in waiting.said


def test_a_run_that_is_killed_keeps_nobody_waiting(workflow):
    first = Started(workflow, f"{LAYER}/top_k/256/metrics.json")
    first.until("Job ")
    second = Started(workflow, f"{LAYER}/top_k/256/metrics.json")
    second.until(f"{WAITS} (process {first.process.pid})")
    first.process.kill()
    second.ends_well()
    assert (workflow.folder / f"{LAYER}/top_k/256/metrics.json").exists()


def test_runs_on_two_models_go_side_by_side(fresh):
    fresh.configure({"models": {"other": other_model()}, "build": ["demo", "other"]})
    with held(fresh, "other"):
        assert WAITS not in fresh.succeed(MODEL)
        waiting = Started(fresh, "all")
        waiting.until(f"{WAITS} (process 4711) works on other")
        waiting.process.send_signal(signal.SIGTERM)
        waiting.process.wait(30)


def other_model():
    """The demo's entry by another name."""
    return raw_config(SMALL)["models"]["demo"]


def test_ctrl_c_leaves_our_line_and_the_same_command_goes_on(workflow):
    """What a terminal sends to all of its processes; the next run says where it goes on."""
    longer = {"models": {"demo": {"train_tokens": 307_200}}, "snapshots": {"every_seconds": 0.5}}
    workflow.configure(longer)
    target = f"{LAYER}/top_k/256/k_4/ae.pt"
    workflow.succeed("results/demo/tokens/train/manifest.json")
    log = workflow.folder / "logs/train/demo/L3/top_k/256.log"
    run = Started(workflow, target)
    run.until("train 2 SAEs demo/L3/top_k/256")
    while not (log.exists() and "snapshot before step" in log.read_text()):
        assert run.process.poll() is None, run.said
        time.sleep(0.05)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.process.wait(60) != 0
    after = run.said.partition("Terminating processes")[2]
    assert "saemake: interrupted; the same command goes on" in after
    for noise in (
        "RuleException",
        "CalledProcessError",
        "Error in rule",
        "WorkflowError",
        "input:",
    ):
        assert noise not in after, after
    said = workflow.succeed(target)
    assert re.search(r"saemake: train demo/L3/top_k/256: goes on at step [1-9]\d* of 600", said)
