"""docs/tutorial.md: its blocks and commands, run as they stand, one after the other."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import PROJECT

pytestmark = pytest.mark.long

TUTORIAL = (PROJECT / "docs" / "tutorial.md").read_text()
PART = re.compile(r"^```(python|yaml)\n(.*?)^```|^    (saemake [^\n]*)$", re.DOTALL | re.MULTILINE)


def test_the_tutorial_does_what_it_says(tmp_path):
    """In a folder of its own, with the project's resources."""
    for name in ("resources", "config", "docs"):
        (tmp_path / name).symlink_to(PROJECT / name)
    (tmp_path / "results/.store").mkdir(parents=True)
    config, done = "", []
    for match in PART.finditer(TUTORIAL):
        language, block, command = match.groups()
        if language == "yaml":
            # A relative folder of the config starts at the project, and this is another folder.
            config += block.replace("folder: mine/text", f"folder: {tmp_path}/mine/text")
            (tmp_path / "mine/mine.yaml").write_text(config)
            continue
        words = [sys.executable, "-c", block] if block else [sys.executable, "-m"]
        words += shlex.split(command) if command else []
        run = subprocess.run(
            words,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert run.returncode == 0, f"{command or block}\n{run.stdout}"
        done.append(command or run.stdout)
    assert len(done) == 7
    assert "position" in done[-1]
    assert "L4" in " ".join(str(path) for path in tmp_path.glob("results/mine/*"))
    for file in ("L2/report.html", "L4/report.html", "L2/top_k/half_k/k_8/features.html"):
        assert (tmp_path / "results/mine" / file).is_file()
    assert (tmp_path / "results/figures/layers.pdf").read_bytes().startswith(b"%PDF")
