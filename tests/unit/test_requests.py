"""What a job asks Slurm for, and what is said of it when Slurm ends it."""

import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import PROJECT, raw_config
from snakemake_interface_logger_plugins.common import LogEvent
from unit.test_screen import shown  # noqa: F401

from saemake.base import interrupts
from saemake.base.errors import SaemakeError
from saemake.commands import command_line
from saemake.config.checks import read
from saemake.jobs import submitted
from saemake.jobs.passes import Shared
from saemake.jobs.resources import Asks, gpus_of
from saemake.jobs.runs import Run
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import Baselines, Sweep
from saemake.paths.sweeps import members
from saemake.plan.passes import cut
from saemake.plan.requests import CUDA_BYTES, MEMORY_FACTOR, MIB, START_MINUTES, of_job
from saemake.plan.totals import plan
from saemake.plan.work import Evaluate, Fit, Look, Train

GEMMA = Sweep("gemma-2-2b", Hookpoint(12), "top_k", "16k")
TARGET = "results/gemma-2-2b/L12/top_k/16k/k_20/ae.pt"


def configured(**slurm):
    return read(raw_config({"slurm": {"device": "h100", **slurm}}), PROJECT, [])


@pytest.fixture(autouse=True)
def _empty_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_pass_asks_for_what_the_plan_says(tmp_path):
    config = configured()
    (job,) = (job for job in plan(config, [TARGET], tmp_path).jobs if job.stage == "training")
    asked = of_job(config, Train(GEMMA))
    hours = job.hours(config.devices["h100"])
    assert asked.hours == pytest.approx(hours)
    assert 1 < hours < 100
    needed = job.memory.on_cpu + CUDA_BYTES
    assert asked.mem_mb == pytest.approx(MEMORY_FACTOR * needed / MIB, abs=1)


def test_time_grows_with_each_attempt_to_the_longest():
    config = configured(longest_hours=5, time_factor=1.5)
    asked = of_job(config, Fit("demo", Hookpoint(3)))
    assert START_MINUTES < asked.minutes(config, 1) <= START_MINUTES + 1
    assert asked.minutes(config, 3) == pytest.approx(3 * asked.minutes(config, 1), abs=3)
    assert of_job(config, Train(GEMMA)).minutes(config, 1) == 5 * 60


@pytest.mark.parametrize(
    "job",
    [
        Evaluate("sae_bench_core", GEMMA),
        Evaluate("dictionary_learning", Baselines("gemma-2-2b", Hookpoint(12))),
        Evaluate("sae_bench_absorption", GEMMA),
        Look(GEMMA),
    ],
)
def test_a_job_asks_for_its_own_part(job):
    """Not for the training before it, which takes many hours."""
    asked = of_job(configured(), job)
    assert 0 < asked.hours < 3
    assert 4000 < asked.mem_mb < 64_000


def test_a_job_of_a_shared_pass_asks_for_all_of_it():
    config = configured()
    other = Sweep("gemma-2-2b", Hookpoint(12), "top_k", "4k")
    shared = read(
        {
            **raw_config({"slurm": {"device": "h100"}}),
            "passes": {"share": ["sparsities", "widths"], "memory_gib": None},
        },
        PROJECT,
        [],
    )
    passes = cut(shared, {each: members(shared, each) for each in (GEMMA, other)})
    assert len(passes) == 1
    alone = [of_job(config, Train(each)).hours for each in (GEMMA, other)]
    both = [of_job(shared, Train(each), passes).hours for each in (GEMMA, other)]
    assert both[0] == both[1]
    assert max(alone) < both[0] < sum(alone)


def test_how_a_gpu_is_asked_for():
    def asked(planned=True, **slurm):
        return Asks(configured(**slurm), Shared(), planned=planned).fit()

    assert asked()["gpu"] == 1
    assert "gres" not in asked()
    gres = asked(gpus="gres", gpu_partition="gpu")
    assert (gres["gres"], gres["slurm_partition"], "gpu" in gres) == ("gpu:1", "gpu", False)
    assert set(asked(gpus="none", gpu_partition="gpu")) == {"mem_mb", "runtime"}
    assert asked(planned=False) == asked(device=None) == {"gpu": 1}


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ({"gpu": 2}, 2),
        ({"gres": "gpu:1"}, 1),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:a100:4"}, 4),
        ({"gres": "lscratch:20"}, 0),
        ({"gpu": 1, "gres": "lscratch:20"}, 1),
        ({}, 0),
    ],
)
def test_gpus_of_a_job(resources, count):
    assert gpus_of(resources) == count


def test_a_device_that_the_config_does_not_have():
    with pytest.raises(SaemakeError, match=r"slurm\.device.*no device 'h10'; did you mean 'h100'"):
        configured(device="h10")


def test_reading_the_snakefile_imports_no_torch():
    common = (PROJECT / "workflow" / "rules" / "common.smk").read_text()
    imports = "\n".join(re.findall(r"^from saemake[^\n(]*import [^\n(]+$", common, re.MULTILINE))
    assert imports.count("\n") > 20
    heavy = "{'torch', 'pandas', 'matplotlib', 'transformers', 'datasets'}"
    code = f"{imports}\nimport sys\nsys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.stderr.strip() == ""


REFUSED = (
    "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition specified: x\n"
    "sbatch: error: Batch job submission failed: Invalid partition name specified'.\n"
    "    sbatch call:\n        sbatch --parsable\nFor further error details see the log."
)
TIMEOUT = (
    "SLURM-job '12' failed, SLURM status is: 'TIMEOUT'. Detailed failure reason unavailable"
    " (status command is not 'sacct').For further error details see the log."
)


def failed(message):
    more = {"event": LogEvent.JOB_ERROR, "jobid": 3, "rule_msg": message, "shellcmd": None}
    return {**more, "log": ["logs/a.log", "slurm/12.log"]}


def record(message):
    return logging.makeLogRecord(failed(message))


def test_words_of_the_executor():
    said = submitted.refusal(record(REFUSED))
    assert said.startswith(
        "Slurm does not take the job: invalid partition specified: x; Invalid partition name"
        " specified; docs/slurm.md"
    )
    assert submitted.end(record(REFUSED)) is None
    assert submitted.refusal(record(TIMEOUT)) is None
    assert submitted.end(record(TIMEOUT)).startswith("Slurm ended its job 12: TIMEOUT (its time")
    by_itself = TIMEOUT.replace("TIMEOUT", "FAILED")
    assert submitted.end(record(by_itself)) is submitted.end(record(None)) is None


def test_a_refused_job_is_one_line(shown):  # noqa: F811
    logger, lines = shown
    for _ in range(2):
        logger.error("Error in rule train", extra=failed(REFUSED))
        logger.error("Trying to restart job 3.")
    assert len(lines) == 1
    assert lines[0].startswith("saemake: job 3: Slurm does not take the job: ")


def test_a_job_that_is_tried_again_has_not_failed(shown, tmp_path):  # noqa: F811
    logger, lines = shown
    run = Run(tmp_path)
    for words, more in (
        ("", {"event": LogEvent.JOB_INFO, "jobid": 3, "log": ["logs/a.log"], "rule_name": "x"}),
        ("Error in rule train", failed(TIMEOUT)),
    ):
        run.see(logging.makeLogRecord({"msg": words, **more}))
    assert [job.fault for job in run.failed] == [submitted.end(record(TIMEOUT))]
    again = logging.makeLogRecord({"msg": "Trying to restart job 3."})
    run.see(again)
    logger.error("Error in rule train", extra=failed(TIMEOUT))
    logger.error("Trying to restart job 3.")
    assert run.failed == []
    assert lines == [
        "saemake: job 3 failed; its log is logs/a.log, slurm/12.log",
        "saemake: job 3 is tried again",
    ]


def test_a_second_signal_does_not_cut_a_snapshot_in_a_job_of_slurm(monkeypatch):
    monkeypatch.setenv(interrupts.SLURM_JOB, "12")
    with interrupts.watched() as interrupt:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
    assert interrupts.slurm_words().startswith("Slurm's job 12 was told to stop")


def test_a_second_signal_ends_a_local_job_at_once(monkeypatch):
    monkeypatch.delenv(interrupts.SLURM_JOB, raising=False)
    with interrupts.watched() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert interrupts.slurm_words() is None


def test_sigterm_has_words_in_a_job_of_slurm_only(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    try:
        monkeypatch.delenv(interrupts.SLURM_JOB, raising=False)
        interrupts.raised_in_slurm()
        assert signal.getsignal(signal.SIGTERM) is before
        monkeypatch.setenv(interrupts.SLURM_JOB, "12")
        interrupts.raised_in_slurm()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


PROFILE = PROJECT / "profiles" / "slurm"
needs_executor = pytest.mark.skipif(
    importlib.util.find_spec("snakemake_executor_plugin_slurm") is None,
    reason="Snakemake's executor for Slurm is not installed: make slurm",
)


@needs_executor
@pytest.mark.parametrize(
    "words",
    [
        ["--workflow-profile", str(PROFILE)],
        [f"--profile={PROFILE}"],
        ["--executor", "slurm"],
        ["-e", "slurm"],
    ],
)
def test_no_slurm_on_this_machine(words, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SaemakeError, match=r"there is no Slurm on this machine \(no sbatch\)"):
        command_line.check(["all", *words])
    command_line.check(["all", *words, "-n"])
    command_line.check(["all", *words, "--executor", "local"])


def test_an_executor_that_is_not_installed():
    with pytest.raises(SaemakeError, match="executor 'lsf' is not installed; install snakemake-"):
        command_line.check(["all", "--executor=lsf"])
