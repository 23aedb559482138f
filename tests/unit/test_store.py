import errno
import fcntl
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from saemake.base.errors import SaemakeError
from saemake.base.store import Store, disk_fault


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / ".store", "saes")


def test_what_is_put_is_there_and_links_are_the_same_file(store, tmp_path):
    assert not store.has("abc")
    store.put("abc", {"ae.pt": b"weights", "config.json": b"{}"})
    assert store.has("abc")
    assert store.files("abc") == ["ae.pt", "config.json"]
    target = tmp_path / "results" / "demo" / "ae.pt"
    store.link("abc", {"ae.pt": target})
    assert target.read_bytes() == b"weights"
    assert target.samefile(store.folder / "abc" / "ae.pt")
    store.link("abc", {"ae.pt": target})  # again: no temporary link may stay
    assert [path.name for path in target.parent.iterdir()] == ["ae.pt"]
    target.unlink()  # as Snakemake does before a job
    assert store.has("abc")


def test_a_link_replaces_what_lies_there(store, tmp_path):
    store.put("abc", {"ae.pt": b"new"})
    target = tmp_path / "ae.pt"
    target.write_bytes(b"old")
    store.link("abc", {"ae.pt": target})
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("damage", [b"weightz", b"", None])
def test_a_damaged_entry_is_dropped_and_said(store, damage, capsys):
    store.put("abc", {"ae.pt": b"weights"})
    path = store.folder / "abc" / "ae.pt"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert not store.has("abc")
    assert "damaged" in capsys.readouterr().out
    store.put("abc", {"ae.pt": b"weights"})
    assert store.has("abc")


def test_an_entry_that_was_made_meanwhile_stays(store):
    with store.entry("abc") as folder:
        (folder / "ae.pt").write_bytes(b"weights")
        store.put("abc", {"ae.pt": b"weights"})
    assert store.has("abc")
    assert [path.name for path in store.folder.iterdir()] == ["abc"]


def test_an_entry_that_fails_leaves_nothing(store):
    def interrupted():
        with store.entry("abc") as folder:
            (folder / "ae.pt").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert not store.has("abc")
    assert list(store.folder.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(store, tmp_path):
    """A file-size limit stands in for the full disk: the same failing write, from the kernel."""
    code = f"""
        import resource, signal, errno
        from pathlib import Path
        from saemake.base import store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        made = store.Store(Path({str(tmp_path / ".store")!r}), "saes")
        try:
            made.put("abc", {{"ae.pt": bytes(2000)}})
        except OSError as error:
            print(error.errno == errno.EFBIG, made.has("abc"), list(made.folder.iterdir()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True False []\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_the_way_out(number):
    fault = disk_fault(OSError(number, os.strerror(number)), Path("results/x/ae.pt"))
    assert isinstance(fault, SaemakeError)
    assert "results/x/ae.pt: no space left" in str(fault)
    assert "run the same command again" in str(fault)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_place_that_cannot_be_written_is_told(number):
    fault = disk_fault(OSError(number, os.strerror(number)), Path("results/x/ae.pt"))
    assert "results/x/ae.pt: cannot be written" in str(fault)


def test_passes_that_share_an_entry_wait_for_each_other(store):
    code = f"""
        from pathlib import Path
        from saemake.base.store import Store
        with Store(Path({str(store.folder.parent)!r}), "saes").lock(["abc", "abd"]):
            print("got it", flush=True)
    """
    with store.lock(["abb", "abc"]):
        other = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
        )
        assert "waiting for it" in other.stdout.readline()
    assert other.stdout.readline() == "got it\n"
    assert other.wait() == 0


def test_a_file_system_without_locks_is_one_line(store, monkeypatch):
    def none(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    for lock in (store.lock(["abc"]), store.try_lock(["abc"]), store.shared("abc")):
        with (
            pytest.raises(SaemakeError, match=r"abc.lock: .* no lock \(No locks available\)"),
            lock,
        ):
            pytest.fail("was not locked")
