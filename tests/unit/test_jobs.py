import hashlib
import subprocess
import sys
import textwrap

from conftest import PROJECT, raw_config

from saemake.base import progress
from saemake.jobs import runs
from saemake.records import made


def run(tmp_path, body):
    code = f"""
import json
from types import SimpleNamespace
from saemake.base.files import write
from saemake.jobs.job import job
from saemake.base.errors import SaemakeError
script = SimpleNamespace(
    log=['logs/job.log'], input=['read.txt'], output=['made.txt'],
    config={raw_config()!r}, resources={{}},
    scriptdir={str(PROJECT / "workflow" / "scripts")!r},
)
with job(script):
{textwrap.indent(body, "    ")}
"""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )


def test_a_foreseen_error_is_one_line_and_status_1(tmp_path):
    done = run(tmp_path, "raise SaemakeError('ae.pt: no; do this')")
    assert (done.returncode, done.stderr) == (1, "saemake: ae.pt: no; do this\n")


def test_where_a_screen_shows_the_run_it_says_the_error(tmp_path, monkeypatch):
    monkeypatch.setenv(progress.SHOWN, "1")
    done = run(tmp_path, "raise SaemakeError('ae.pt: no; do this')")
    assert (done.returncode, done.stderr) == (1, "")
    assert runs.fault_of("logs/job.log", tmp_path / runs.RUNNING) == "ae.pt: no; do this"


def test_where_the_screen_cannot_be_told_the_job_says_it_itself(tmp_path, monkeypatch):
    monkeypatch.setenv(progress.SHOWN, "1")
    (tmp_path / "results").touch()  # no folder can be made in it
    done = run(tmp_path, "raise SaemakeError('ae.pt: no; do this')")
    assert (done.returncode, done.stderr) == (1, "saemake: ae.pt: no; do this\n")


def test_an_unforeseen_error_is_one_line_and_its_traceback_is_in_the_log(tmp_path):
    done = run(tmp_path, "{}['key']")
    assert done.returncode == 1
    assert done.stderr == "saemake: KeyError: 'key' (traceback in logs/job.log)\n"
    assert "Traceback" in (tmp_path / "logs" / "job.log").read_text()


def test_a_full_disk_anywhere_in_a_job_is_one_line(tmp_path):
    done = run(tmp_path, "open('/dev/full', 'wb', buffering=0).write(b'x')")
    assert done.returncode == 1
    assert "no space left on the device; free some" in done.stderr
    assert done.stderr.count("\n") == 1


def test_full_memory_is_one_line(tmp_path):
    said = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.50 GiB free."
    full = f"the GPU's memory is full ({said}): end what else uses it, let fewer SAEs share a pass"
    done = run(tmp_path, f"import torch\nraise torch.OutOfMemoryError({said!r})")
    assert done.returncode == 1
    assert full in done.stderr
    assert done.stderr.count("\n") == 1
    done = run(tmp_path, "import torch\ntorch.empty(2**60)")  # more than an address space has
    assert "the machine's memory is full (" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    body = "write('made/a.txt', b'old')\nwrite('made/a.txt', None)"
    done = run(tmp_path, body)
    assert done.returncode == 1
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["a.txt"]
    assert (tmp_path / "made" / "a.txt").read_bytes() == b"old"


def test_a_job_that_ends_well_records_what_it_read_and_wrote(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "read.txt").write_text("before")
    # What a job read counts, not what another process has put there since.
    body = "write('read.txt', b'after')\nwrite('made.txt', b'made')"
    done = run(tmp_path, body)
    assert done.returncode == 0, done.stderr
    record = made.read("made.txt")
    assert record.sha256 == hashlib.sha256(b"made").hexdigest()
    assert record.inputs == {"read.txt": hashlib.sha256(b"before").hexdigest()}


def test_a_job_that_fails_leaves_the_record_of_the_last_that_did_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "write('made.txt', b'made')")
    before = made.read("made.txt")
    done = run(tmp_path, "write('made.txt', b'other')\nraise SaemakeError('no')")
    assert done.returncode == 1
    assert made.read("made.txt") == before


def test_records_of_files_that_are_gone_are_swept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "write('made.txt', b'made')")
    left = made.path_of("made.txt").with_name(".made.txt.json.4711")  # of a killed process
    left.touch()
    made.sweep()
    assert made.read("made.txt") is not None
    assert not left.exists()
    (tmp_path / "made.txt").unlink()
    made.sweep()
    assert made.read("made.txt") is None


def test_a_damaged_record_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "write('made.txt', b'made')")
    made.path_of("made.txt").write_text("{}")
    assert made.read("made.txt") is None


def test_ctrl_c_before_the_work_begins_is_one_line(tmp_path):
    """While the modules are imported, which takes seconds."""
    code = "from saemake import jobs\nraise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr == "saemake: interrupted; the same command goes on\n"
