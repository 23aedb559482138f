"""What running jobs and runs tell of themselves by files."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from saemake.base import progress, saying, telling
from saemake.jobs import runs


@pytest.fixture
def shown(monkeypatch):
    """A screen shows the progress of jobs."""
    monkeypatch.setenv(progress.SHOWN, "1")


@pytest.fixture
def another(tmp_path):
    """Starts processes that tell of themselves in a folder, and live until the test ends."""
    code = """
    import sys
    from pathlib import Path
    from saemake.base.telling import Told
    told = Told(Path(sys.argv[1]), "job")
    for number in range(3):  # the last counts
        told.write({"log": sys.argv[2], "started": 1, "number": number})
    print("told", flush=True)
    sys.stdin.read()
    """
    started = []

    def start(log):
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path), log]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"told\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_two_processes_tell_side_by_side(tmp_path, another):
    another("logs/a.log")
    another("logs/b.log")
    told = sorted(telling.living(tmp_path, "job"), key=lambda each: each["log"])
    assert {(each["log"], each["number"]) for each in told} == {
        ("logs/a.log", 2),
        ("logs/b.log", 2),
    }
    assert len(telling.living(tmp_path, "job")) == 2


def test_the_file_of_a_killed_process_is_removed(tmp_path, another):
    killed, _ = another("logs/a.log"), another("logs/b.log")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list(tmp_path.glob("job-*.json"))) == 2
    assert [each["log"] for each in telling.living(tmp_path, "job")] == ["logs/b.log"]
    assert len(list(tmp_path.glob("job-*.json"))) == 2
    assert len(telling.living(tmp_path, "job", clean=True)) == 1
    assert len(list(tmp_path.glob("job-*.json"))) == 1


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    held = telling.Told(tmp_path, "job")
    held.write({"number": 1})
    is_dead, opened_files = telling._is_dead, []

    def meanwhile(opened):
        if not opened_files:
            held.write({"number": 2})
        opened_files.append(opened)
        return is_dead(opened)

    monkeypatch.setattr(telling, "_is_dead", meanwhile)
    assert telling.living(tmp_path, "job", clean=True) == [{"number": 2}]
    assert len(opened_files) == 2


def test_another_kind_and_a_damaged_file_are_left_out(tmp_path):
    telling.Told(tmp_path, "run").write({"a": 1})
    held = telling.Told(tmp_path, "job")
    held.write({"a": 1})
    held.path.write_text('{"a":')  # keeps the inode, and so the lock
    assert telling.living(tmp_path, "job") == []
    assert held.path.exists()


def test_where_nothing_can_be_written_nothing_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    told = telling.Told(tmp_path / "file" / "folder", "job")
    told.write({"a": 1})
    told.close()


def test_a_job_tells_how_far_it_is(tmp_path, shown, capfd):
    figures = {progress.L0: [4.0, 31.5], progress.EXPLAINED: [0.9, 0.5], progress.RECOVERED: []}
    with progress.telling(tmp_path, {"log": "logs/a.log"}):
        assert runs.passes(tmp_path)["logs/a.log"].fraction is None
        with progress.bar(1000, "train x", "tok", 200, lambda: figures) as bar:
            time.sleep(0.01)
            bar.update(300)
            told = runs.passes(tmp_path)["logs/a.log"]
    assert (told.label, told.unit, told.done, told.fraction) == ("train x", "tok", 500, 0.5)
    assert told.figures == {"l0": [4.0, 31.5], "explained": [0.5, 0.9]}
    assert told.pid == os.getpid()
    assert 0 < told.rate <= 300 / 0.01
    assert runs.passes(tmp_path) == {}
    assert capfd.readouterr().err == ""


def test_progress_is_told_twice_a_second_at_most(tmp_path, shown):
    asked = []
    with (
        progress.telling(tmp_path, {}),
        progress.bar(10_000, "x", "tok", figures=lambda: asked.append(1) or {}) as bar,
    ):
        for _ in range(10_000):
            bar.update(1)
    assert len(asked) <= 4


def test_a_figure_that_is_not_finite_is_not_told(tmp_path, shown):
    with (
        progress.telling(tmp_path, {"log": "a"}),
        progress.bar(10, "x", "tok", figures=lambda: {"l0": [1.0, float("nan")]}),
    ):
        path = next(tmp_path.glob("job-*.json"))
        assert json.loads(path.read_text())["figures"] == {}


def test_without_a_screen_there_is_a_bar(monkeypatch, capfd, tmp_path):
    monkeypatch.delenv(progress.SHOWN, raising=False)
    monkeypatch.chdir(tmp_path)
    with progress.bar(10, "train x", "tok", figures=lambda: {progress.L0: [2.0, 8.0]}) as bar:
        bar.update(10)
    said = capfd.readouterr().err
    assert "train x: 100%" in said
    assert "l0=2..8" in said
    assert list(tmp_path.iterdir()) == []  # no job, no file


def test_why_a_job_failed_outlives_it(tmp_path, shown):
    with progress.telling(tmp_path, {"log": "logs/a.log"}):
        progress.failed("the loss is not finite")
    assert runs.fault_of("logs/a.log", tmp_path) == "the loss is not finite"
    assert runs.fault_of("logs/b.log", tmp_path) is None
    assert runs.passes(tmp_path) == {}
    runs.clean(tmp_path)
    assert runs.fault_of("logs/a.log", tmp_path) is None


def test_words_that_nobody_can_read_stop_nothing():
    """As when stderr is a pipe whose reader has gone."""
    code = "from saemake.base.saying import say; say('a'); say('b'); print('went on')"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stderr=write, stdout=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_say_has_our_name_before_it(capfd):
    saying.say("x")
    assert capfd.readouterr().err == "saemake: x\n"


def test_a_line_that_nobody_can_read_ends_no_work(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stream:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", stream)
        progress.say("x")
        monkeypatch.setattr(sys, "stderr", None)
        progress.say("x")
        with progress.bar(1, "label", "tok") as bar:
            bar.update(1)
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)
