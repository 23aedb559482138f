"""What Snakemake's executor for Slurm says of a job that failed, in our words."""

import logging
import re

# As snakemake-executor-plugin-slurm says it, in a failed job's message.
REFUSED = re.compile(r"sbatch failed\. The error message was '(?P<why>.*?)'\.$", re.S | re.M)
NOT_SUBMITTED = re.compile(r"Job submission failed with exception: (?P<why>[^\n]*)")
STATE = re.compile(r"SLURM-job '(?P<job>\w+)' failed.*?status is: '(?P<state>\w+)'", re.S)
PREFIXES = re.compile(r"sbatch: (error: )?|Batch job submission failed: ")
# What a state means, where its name does not say it.
MEANS = {
    "TIMEOUT": "its time was up: raise slurm.time_factor or slurm.longest_hours of the config",
    "OUT_OF_MEMORY": "it needed more memory than it asked for: raise its mem_mb by --set-resources",
    "CANCELLED": "it was cancelled",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "another job took its place",
}
WAY_OUT = "docs/slurm.md says what a profile asks for, `sinfo` what there is"


def refusal(record: logging.LogRecord) -> str | None:
    """Why a job was not submitted; None of one that was, or of no job of Slurm's."""
    message = _message(record)
    if match := REFUSED.search(message) or NOT_SUBMITTED.search(message):
        lines = [PREFIXES.sub("", line).strip() for line in match["why"].splitlines()]
        why = "; ".join(dict.fromkeys(line.rstrip(".") for line in lines if line))
        return f"Slurm does not take the job: {why}; {WAY_OUT}"
    return None


def end(record: logging.LogRecord) -> str | None:
    """How Slurm ended a job; None where it ended by itself, or is no job of Slurm's."""
    match = STATE.search(_message(record))
    if match is None or match["state"] == "FAILED":
        return None
    means = f" ({MEANS[match['state']]})" if match["state"] in MEANS else ""
    return f"Slurm ended its job {match['job']}: {match['state']}{means}"


def _message(record: logging.LogRecord) -> str:
    return str(getattr(record, "rule_msg", None) or "")
