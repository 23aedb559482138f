"""What `make demo` builds, built in two clones: every file of results/ the same but provenance's
times."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT

pytestmark = pytest.mark.long


def built(folder):
    """A clone of what is committed, with the demo built in it."""
    subprocess.run(["git", "clone", "-q", str(PROJECT), str(folder)], check=True)
    snakemake = Path(sys.executable).with_name("snakemake")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run([str(snakemake), "--cores", "2"], cwd=folder, env=environment, check=True)
    return folder / "results"


def content(path):
    """A file's bytes; of provenance.json, the sums over it and the records of it, what is not a
    time."""
    if path.name == "provenance.json":
        said = json.loads(path.read_text())
        assert said.pop("pass_wall_time_s") > 0
        return said
    if path.name == "sums.json":
        return {
            key: value for key, value in json.loads(path.read_text()).items() if "prov" not in key
        }
    if "locks" in path.parts:
        return None  # a run's process, which another run that waits is told
    if "made" in path.parts and path.suffix == ".json":
        said = json.loads(path.read_text())
        said["inputs"] = {key: sum_ for key, sum_ in said["inputs"].items() if "prov" not in key}
        return {
            key: value for key, value in said.items() if "prov" not in path.name or key != "sha256"
        }
    return path.read_bytes()


def test_two_clones_build_the_same_files(tmp_path):
    first, second = built(tmp_path / "first"), built(tmp_path / "second")
    paths = [
        sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        for folder in (first, second)
    ]
    assert paths[0] == paths[1]
    assert len([path for path in paths[0] if path.name == "ae.pt"]) == 2 * 18  # and the store's
    for path in paths[0]:
        assert content(first / path) == content(second / path), path
    print(f"\n{len(paths[0])} files of two clones: the same")
