"""What is left of Snakemake's words on a failed job."""

import logging

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from saemake.jobs import screen


@pytest.fixture
def shown():
    """Snakemake's logger with its handler for the screen, which here collects."""
    lines = []

    class Screen(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    handler, logger = Screen(), logging.getLogger(screen.SNAKEMAKE)
    handler.name = screen.SCREEN
    before, logger.handlers = logger.handlers, [handler]
    screen.shorten_failures()
    screen.shorten_failures()
    yield logger, lines
    logger.handlers = before


def job_fails(logger, shellcmd=None, how="returned non-zero exit status 1."):
    exception = (
        f"RuleException:\nCalledProcessError in file train.smk, line 41:\nCommand '...' {how}"
    )
    logger.error(exception, extra={"event": LogEvent.ERROR})
    more = {"event": LogEvent.JOB_ERROR, "jobid": 3, "log": ["logs/a.log"], "shellcmd": shellcmd}
    logger.error("Error in rule train", extra=more)
    logger.error("Removing output files of failed job train since ...")


def ends(logger):
    logger.error(f"WorkflowError:\n{screen.NOT_ALL}.", extra={"event": LogEvent.ERROR})


def test_a_failed_job_is_one_line(shown):
    logger, lines = shown
    job_fails(logger)
    ends(logger)
    assert lines == [
        "saemake: job 3 failed; its log is logs/a.log",
        f"WorkflowError:\n{screen.NOT_ALL}.",
    ]


def test_after_an_interrupt_the_jobs_line_is_the_last(shown):
    logger, lines = shown
    logger.error(f"{screen.ON_REQUEST}, this might take some time.")
    job_fails(logger)
    ends(logger)
    assert lines == [f"{screen.ON_REQUEST}, this might take some time."]


def test_an_interrupt_between_jobs_has_a_line_too(shown):
    logger, lines = shown
    logger.error(f"{screen.ON_REQUEST}, this might take some time.")
    ends(logger)
    assert lines[1:] == ["saemake: interrupted; the same command goes on"]


def test_other_words_stay(shown):
    logger, lines = shown
    logger.error("MissingInputException in rule x", extra={"event": LogEvent.ERROR})
    job_fails(logger, shellcmd="false")
    assert lines[0] == "MissingInputException in rule x"
    assert lines[1] == "Error in rule train"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("died with <Signals.SIGSEGV: 11>.", "was ended by SIGSEGV"),
        ("returned non-zero exit status 3.", "ended with status 3"),
        (
            "died with <Signals.SIGKILL: 9>.",
            "was ended by SIGKILL, as the kernel does where memory runs out",
        ),
    ],
)
def test_what_a_job_could_not_say_itself_is_said(shown, how, said):
    logger, lines = shown
    job_fails(logger, how=how)
    assert lines == [
        f"saemake: a job's process {said}",
        "saemake: job 3 failed; its log is logs/a.log",
    ]


def test_a_job_that_ctrl_c_ended_first_is_no_failure(shown):
    logger, lines = shown
    job_fails(logger, how="died with <Signals.SIGINT: 2>.")
    logger.error(f"{screen.ON_REQUEST}, this might take some time.")
    ends(logger)
    assert lines == [f"{screen.ON_REQUEST}, this might take some time."]
