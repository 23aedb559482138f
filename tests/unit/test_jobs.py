import subprocess
import sys
import textwrap


def run(tmp_path, body):
    code = "from saemake import jobs\nfrom saemake.errors import SaemakeError\n"
    code += "with jobs.job('logs/job.log'):\n" + textwrap.indent(body, "    ")
    return subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )


def test_a_foreseen_error_is_one_line_and_status_1(tmp_path):
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


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    body = "jobs.write('made/a.txt', b'old')\njobs.write('made/a.txt', None)"
    done = run(tmp_path, body)
    assert done.returncode == 1
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["a.txt"]
    assert (tmp_path / "made" / "a.txt").read_bytes() == b"old"
