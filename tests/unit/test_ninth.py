"""An architecture of one's own, added as docs/adding-an-architecture.md says: to a copy of the
project, where all that the tests ask of every architecture is asked of it too.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import PROJECT

from saemake.architectures.description import Architecture
from saemake.architectures.trainer import Dictionary, Trainer

NINTH = "raw_top_k"
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-n0", "-rA")
COPIED = (
    *("Snakefile", "profiles", "pyproject.toml", "saemake", "config", "tests", "workflow"),
    "snakemake_logger_plugin_saemake",
)
# Those that ask something of every architecture.
SHARED_TESTS = [
    *("tests/unit/test_architectures.py", "tests/unit/test_frozen.py"),
    *("tests/unit/test_loading.py", "tests/unit/test_evaluation.py"),
    *("tests/unit/test_snapshots.py", "tests/unit/test_publishing.py"),
    *("tests/unit/test_planned.py", "tests/unit/test_config.py"),
]


def run(copy, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project with the ninth in it, all steps of the guide done but freezing it."""
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    for name in ("resources", "docs", "envs", "README.md"):
        (folder / name).symlink_to(PROJECT / name)
    shutil.copytree(folder / "tests/ninth" / NINTH, folder / "saemake/architectures" / NINTH)
    config = folder / "config/config.yaml"
    text = config.read_text()
    assert text.count("\narchitectures:\n") == 1
    entry = f"\narchitectures:\n  {NINTH}: {{sweep: [4, 8, 16, 32]}}\n"
    config.write_text(text.replace("\narchitectures:\n", entry))
    return folder


def test_the_guide_names_every_attribute_and_member():
    text = (PROJECT / "docs" / "adding-an-architecture.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(Architecture.__annotations__) <= named
    assert Dictionary.__abstractmethods__ | Trainer.__abstractmethods__ <= named
    set_by_the_loader = {"config", "origin"}
    assert set(Dictionary.__annotations__) - set_by_the_loader <= named


@pytest.mark.long
def test_a_new_architecture_passes_what_every_one_must(copy):
    before = (copy / "tests/unit/frozen.json").read_text().splitlines()
    run(copy, "tests/unit/test_frozen.py", NINTH)
    after = (copy / "tests/unit/frozen.json").read_text().splitlines()
    assert set(before) < set(after)
    chosen = f"{NINTH} or every_key or two_recipes or among_all_architectures"
    found = run(copy, *PYTEST, *SHARED_TESTS, "-k", chosen)
    passed = re.findall(r"^PASSED (\S+)", found, flags=re.MULTILINE)
    asked = {name.split("::")[1].split("[")[0] for name in passed if NINTH in name}
    print(f"\n{len(passed)} tests, {len(asked)} of every architecture")
    assert {path.split("::")[0] for path in passed} == set(SHARED_TESTS)
    assert len(asked) >= 14


@pytest.mark.acceptance
def test_a_new_architecture_goes_through_the_workflow(copy):
    """Trained and judged by its path, as the others are."""
    found = run(copy, *PYTEST, "tests/workflow/test_demo.py", "-k", f"same_way and {NINTH}")
    assert re.findall(r"^PASSED .*\[(.*)\]", found, flags=re.MULTILINE) == [NINTH]
