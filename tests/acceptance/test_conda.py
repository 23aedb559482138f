"""`--sdm conda`: Snakemake copies the conda file to another folder, has the environment made there,
and runs jobs with its python. conda itself is a stand-in (conda_stand_in.py): its own solver and
its python package are not shown."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conda_stand_in import make
from conftest import LAYER, PROJECT, Workflow

pytestmark = pytest.mark.long
# All of the package but what only a GPU has.
IMPORT_ALL = """
import importlib, pkgutil, saemake
for module in pkgutil.walk_packages(saemake.__path__, "saemake."):
    if not module.name.startswith(("saemake.kernels", "saemake.__main__")):
        importlib.import_module(module.name)
print(saemake.__file__)
"""


def test_jobs_run_in_the_environment_that_conda_makes_of_the_file(fresh: Workflow) -> None:
    conda = fresh.folder / "conda"
    make(conda)
    path = f"{conda / 'bin'}:{os.environ['PATH']}"
    target = f"{LAYER}/top_k/256/k_4/ae.pt"
    output = fresh.succeed(target, "--sdm", "conda", "--quiet", "reason", PATH=path)
    assert "Activating conda environment" in output
    places = {Path(line) for line in (conda / "activated").read_text().split()}
    (place,) = {each if each.is_absolute() else fresh.folder / each for each in places}
    assert place.parent == fresh.folder / ".snakemake" / "conda"
    copy = place.with_name(f"{place.name}.yaml")
    original = PROJECT / "envs" / "saemake.yaml"
    assert yaml.safe_load(copy.read_text()) == yaml.safe_load(original.read_text())
    provenance = json.loads(fresh.read(f"{LAYER}/top_k/256/k_4/provenance.json"))
    pins = dict(pin.split("==") for pin in (PROJECT / "envs/requirements.txt").read_text().split())
    for name in ("torch", "transformers", "nnsight"):
        assert provenance["software"][name].partition("+")[0] == pins[name]

    # The environment has all by itself that saemake imports, and pip finds nothing missing.
    python = str(place / "bin" / "python")
    found = subprocess.run(
        [python, "-c", IMPORT_ALL],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()).is_relative_to(PROJECT)
    checked = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert sys.executable != python
