"""A job has a GPU of its own: never two on one, and none is lost where a job dies."""

import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import PROJECT

from saemake.base import gpus
from saemake.base.errors import SaemakeError
from saemake.base.gpus import Gpu, take, visible

LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa1111-0000)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb2222-0000)
  MIG 3g.20gb     Device  0: (UUID: MIG-cccc3333-0000)
  MIG 3g.20gb     Device  1: (UUID: MIG-cccc4444-0000)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb5555-0000)
"""
A, B, C = "GPU-aaaa1111-0000", "GPU-bbbb2222-0000", "GPU-bbbb5555-0000"
PARTS = ["MIG-cccc3333-0000", "MIG-cccc4444-0000"]
SEED = 20261128
# Takes a GPU, says when, holds it for a while, says when it ends.
JOB = """
import sys, time
from pathlib import Path
from saemake.base.gpus import take
folder, log, names = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
seconds, count = sys.argv[4], int(sys.argv[5])
held = take(names, count, folder)
start = time.monotonic()
Path(log).write_text(f"{held.places}\\n")
time.sleep(float(seconds))
places = ",".join(map(str, held.places))
Path(log).write_text(f"{places} {start} {time.monotonic()}\\n")
"""


def driver(folder: Path) -> Path:
    """What the driver of a machine with a GPU shows."""
    (folder / "driver/0000:01:00.0").mkdir(parents=True)
    return folder / "driver"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, [Gpu(A, A), *(Gpu(part, part) for part in PARTS), Gpu(C, C)]),
        ("0,2", [Gpu("0", A), Gpu("2", C)]),
        ("2,0", [Gpu("2", C), Gpu("0", A)]),
        (A, [Gpu(A, A)]),
        ("GPU-aaaa", [Gpu("GPU-aaaa", A)]),
        ("MIG-cccc4", [Gpu("MIG-cccc4", PARTS[1])]),
        ("GPU-bbbb", []),  # could be either
        ("0,-1,2", [Gpu("0", A)]),
        ("0,7,2", [Gpu("0", A)]),
        ("", []),
        ("-1", []),
    ],
)
def test_what_is_visible(asked, found):
    environment = {} if asked is None else {gpus.VISIBLE: asked}
    assert visible(LISTED, environment) == found


def test_nothing_is_visible_where_nothing_is_listed():
    assert visible("", {}) == visible("No devices were found", {gpus.VISIBLE: "0"}) == []


def test_a_job_sees_its_own_gpu_only(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "DRIVERS_GPUS", driver(tmp_path))
    monkeypatch.setattr(gpus, "_nvidia_smi", lambda: LISTED)
    monkeypatch.setattr(gpus, "take", lambda names, count: take(names, count, tmp_path))
    monkeypatch.setenv(gpus.VISIBLE, "2,0")
    first = gpus.claim()
    assert gpus.os.environ[gpus.VISIBLE] == "2"
    monkeypatch.setenv(gpus.VISIBLE, f"{C},{A}")
    second = gpus.claim()
    assert gpus.os.environ[gpus.VISIBLE] == A
    first.free()
    monkeypatch.setenv(gpus.VISIBLE, "0,2")
    assert gpus.claim().places == [1]
    second.free()


def test_a_job_takes_as_many_as_it_asks_for(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "DRIVERS_GPUS", driver(tmp_path))
    monkeypatch.setattr(gpus, "_nvidia_smi", lambda: LISTED)
    monkeypatch.setattr(gpus, "take", lambda names, count: take(names, count, tmp_path))
    monkeypatch.setenv(gpus.VISIBLE, "0,2")
    with pytest.raises(SaemakeError, match="takes 3 GPUs, and 2 can be seen: lower a_key,"):
        gpus.claim(3, "a_key")
    one = gpus.claim()
    # Waits for the other, and does not hold the first meanwhile.
    waited = []
    monkeypatch.setattr(
        gpus.time, "sleep", lambda seconds: waited.append(take([C], 1, tmp_path)) or one.free()
    )
    monkeypatch.setenv(gpus.VISIBLE, "0,2")
    monkeypatch.setattr(gpus, "_free_now", free_after_one_look(gpus._free_now, waited))
    both = gpus.claim(2)
    assert both.places == [0, 1]
    assert gpus.os.environ[gpus.VISIBLE] == "0,2"


def free_after_one_look(look, waited):
    """What was taken in the meantime is given back before the second look."""

    def looking(*given):
        for held in waited:
            held.free()
        return look(*given)

    return looking


def test_without_a_driver_or_with_all_hidden_nothing_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "DRIVERS_GPUS", tmp_path / "none")
    assert gpus.claim() is None
    monkeypatch.setattr(gpus, "DRIVERS_GPUS", driver(tmp_path))
    monkeypatch.setattr(gpus, "_nvidia_smi", lambda: LISTED)
    monkeypatch.setenv(gpus.VISIBLE, "-1")
    assert gpus.claim() is None
    assert gpus.os.environ[gpus.VISIBLE] == "-1"


def test_a_folder_that_cannot_be_used_is_no_reason_to_stop(tmp_path):
    (tmp_path / "file").write_text("")
    assert take(["a", "b"], 2, tmp_path / "file").places == [0, 1]


def test_a_job_that_waits_says_so(tmp_path, capsys, monkeypatch):
    held = take(["only"], 1, tmp_path)
    monkeypatch.setattr(gpus.time, "sleep", lambda seconds: held.free())
    assert take(["only"], 1, tmp_path).places == [0]
    assert capsys.readouterr().err == "saemake: other jobs use the GPU; waiting until one is free\n"


def start(folder: Path, names: str, seconds: float, count: int) -> tuple[subprocess.Popen, Path]:
    log = folder / f"job-{time.monotonic_ns()}.txt"
    command = [sys.executable, "-c", JOB, str(folder), str(log), names, str(seconds), str(count)]
    return subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL), log


def test_fifty_jobs_over_four_gpus_with_a_tenth_killed(tmp_path, monkeypatch):
    draw, names = random.Random(SEED), ",".join("abcd")
    times_of: dict[str, list[tuple[float, float]]] = {}
    # Every fifth takes two, as a pass over several devices does.
    counts = [2 if number % 5 == 0 else 1 for number in range(50)]
    jobs = [start(tmp_path, names, draw.uniform(0.02, 0.2), count) for count in counts]
    killed = draw.sample(range(50), 5)
    for number in killed:
        time.sleep(draw.uniform(0, 0.3))
        jobs[number][0].send_signal(signal.SIGKILL)
    for number, (process, log) in enumerate(jobs):
        status = process.wait(120)
        if number not in killed:
            assert status == 0
            places, *times = log.read_text().split()
            assert len(places.split(",")) == counts[number]
            for place in places.split(","):
                times_of.setdefault(place, []).append(tuple(map(float, times)))
    assert sorted(times_of) == ["0", "1", "2", "3"]
    # Never two on one.
    for times in times_of.values():
        for (_, ended), (started, _) in pairwise(sorted(times)):
            assert ended < started
    # All four are free again, the killed jobs' too.
    monkeypatch.setattr(gpus.time, "sleep", lambda seconds: pytest.fail("a GPU is lost"))
    assert [take(list("abcd"), 2, tmp_path).places for _ in range(2)] == [[0, 1], [2, 3]]
