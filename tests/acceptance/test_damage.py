"""Damage is noticed, named, and repaired or refused: never trained on, never served."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import Workflow

pytestmark = pytest.mark.long


@pytest.fixture
def workflow(fresh):
    return fresh


FOLDER = "results/demo/L3/top_k/256"
TABLE = f"{FOLDER}/metrics.json"
SAE = f"{FOLDER}/k_4/ae.pt"


def flip(path):
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def truncate(path):
    path.write_bytes(path.read_bytes()[:100])


def empty(path):
    path.write_bytes(b"")


DAMAGES = [flip, truncate, empty]
CHECKPOINT = {"models": {"demo": {"architectures": {"top_k": {"checkpoints": [0.5]}}}}}


@pytest.fixture
def built(workflow):
    workflow.succeed(f"{FOLDER}/k_4/ae.pt")
    return workflow


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_ae_is_not_judged_damaged_and_comes_back_the_same(built, damage):
    right = built.read(SAE)
    damage(built.folder / SAE)  # the store's file as well: they are one
    output = built.fail(TABLE)
    assert f"saemake: {SAE}: damaged, its sha256 differs from the one in provenance.json" in output
    assert not (built.folder / TABLE).exists()
    (built.folder / SAE).unlink()  # the way out that it says
    output = built.succeed(SAE)
    assert "is damaged (ae.pt has changed); making it again" in output
    assert built.read(SAE) == right
    built.succeed(TABLE)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["ae.pt", "config.json", "sums.json"])
def test_an_entry_of_the_store_is_dropped_and_made_again(built, damage, name):
    right = {file: built.read(f"{FOLDER}/k_4/{file}") for file in ("ae.pt", "config.json")}
    shutil.rmtree(built.folder / FOLDER)
    for entry in (built.folder / "results/.store/saes").iterdir():
        damage(entry / name)
    output = built.succeed(SAE)
    assert output.count("is damaged") == 2
    assert {file: built.read(f"{FOLDER}/k_4/{file}") for file in right} == right


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_shard_of_tokens_is_not_trained_on(workflow, damage):
    manifest = workflow.folder / "results/demo/tokens/train/manifest.json"
    workflow.succeed(str(manifest.relative_to(workflow.folder)))
    shard = manifest.parent / json.loads(manifest.read_text())["shards"][0]["file"]
    right = shard.read_bytes()
    damage(shard)
    output = workflow.fail(SAE)
    assert (
        f"saemake: {shard.relative_to(workflow.folder)}: its sha256 is not the manifest's" in output
    )
    assert "delete results/demo/tokens/train/manifest.json" in output
    assert not (workflow.folder / SAE).exists()
    manifest.unlink()
    workflow.succeed(SAE)
    assert shard.read_bytes() == right


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_snapshot_is_dropped_and_the_pass_starts_again(workflow, tmp_path_factory, damage):
    straight = Workflow(tmp_path_factory.mktemp("straight"))
    long = {"models": {"demo": {"train_tokens": 409_600}}, "snapshots": {"every_seconds": 0.2}}
    straight.configure(long)
    straight.succeed(SAE)
    workflow.configure(long)
    running = subprocess.Popen(
        workflow.command(SAE),
        cwd=workflow.folder,
        env=workflow.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    snapshots = workflow.folder / "results/.store/snapshots"
    while not (snapshots.is_dir() and any(path.name[0] != "." for path in snapshots.iterdir())):
        assert running.poll() is None
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    for entry in snapshots.iterdir():
        if entry.name[0] != ".":
            damage(entry / "shared.pt")
    output = workflow.succeed(SAE)
    assert "is damaged (shared.pt has changed)" in output
    log = (workflow.folder / "logs/train/demo/L3/top_k/256.log").read_text()
    assert "going on at step" not in log
    assert workflow.read(SAE) == straight.read(SAE)


@contextlib.contextmanager
def file_system(place):
    """One of its own at `place`, in memory; only root may."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def test_a_read_only_results_is_named_and_left_as_it_is(workflow):
    with file_system(workflow.folder / "results") as results:
        workflow.succeed("results/demo/tokens/train/manifest.json")
        remount(results, "ro")
        output = workflow.fail(SAE)
        assert "Read-only file system" in output
        remount(results, "rw")
        workflow.succeed(SAE)


@pytest.fixture
def small_disk(workflow):
    """results/.store on a file system whose size the test sets."""
    with file_system(workflow.folder / "results" / ".store") as place:
        yield place


@pytest.mark.parametrize(
    ("when", "size", "config"),
    [
        ("saving", "200k", {}),
        ("a snapshot", "1500k", {"snapshots": {"every_seconds": 0}}),
        ("a checkpoint", "400k", CHECKPOINT),
    ],
)
def test_a_full_disk_is_named_and_nothing_half_written_is_kept(
    workflow, small_disk, when, size, config
):
    workflow.configure(config)
    workflow.succeed("results/demo/tokens/train/manifest.json")
    remount(small_disk, f"size={size}")
    output = workflow.run(SAE)
    full = "no space left on the device; free some and run the same command again"
    assert full in output.stdout
    if when == "a snapshot":  # training goes on without
        assert "saemake: no snapshot: " in output.stdout
    else:
        assert output.returncode != 0
        assert not (workflow.folder / SAE).exists()
    for kind in ("saes", "snapshots", "checkpoints"):
        for entry in (small_disk / kind).glob("*"):
            sums = json.loads((entry / "sums.json").read_text())
            assert {path.name for path in entry.iterdir()} == {*sums, "sums.json"}, when
    remount(small_disk, "size=64m")
    workflow.succeed(SAE)
