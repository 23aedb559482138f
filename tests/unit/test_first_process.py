"""In a container snakemake may be process 1. A job of it must not take itself for an orphan."""

import os
import subprocess
import sys

import pytest

ALONE = ["unshare", "--pid", "--fork", "--mount-proc"]
JOB = "from saemake.jobs.job import _end_with_parent; _end_with_parent(); print('works')"
# Starts a job as process 1, whose command line has the further words.
FIRST = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0
    or bool(subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode),
    reason="no namespace of processes can be made here",
)


@pytest.mark.parametrize(("first", "said"), [("snakemake", "works\n"), ("init", "")])
def test_only_snakemake_has_jobs_as_process_1(first: str, said: str) -> None:
    command = [*ALONE, sys.executable, "-c", FIRST, JOB, first]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == said, done.stderr
