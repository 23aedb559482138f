"""The commit that provenance names, and whether the checkout is that commit."""

import subprocess

from saemake.base import source


def test_a_users_own_files_leave_a_checkout_clean(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True)

    monkeypatch.setattr(source, "ROOT", tmp_path)
    assert source.describe() is None
    (tmp_path / "saemake").mkdir()
    (tmp_path / "saemake" / "a.py").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    assert source.describe()["clean"]
    (tmp_path / "mine.yaml").write_text("build: []")
    assert source.describe()["clean"]
    (tmp_path / "saemake" / "b.py").write_text("2")
    assert not source.describe()["clean"]
    (tmp_path / "saemake" / "b.py").unlink()
    (tmp_path / "saemake" / "a.py").write_text("3")
    assert not source.describe()["clean"]
