"""What trains and judges does not import what tables, figures, texts and the workflow need."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import PROJECT

ABSENT = ("datasets", "pyarrow", "pandas", "seaborn", "matplotlib", "snakemake")


@pytest.mark.parametrize(
    "modules",
    [
        ("saemake.llm.model", "saemake.llm.shape", "saemake.llm.weights", "saemake.llm.cost"),
        ("saemake.text.shards", "saemake.text.prefetch"),
        ("saemake.architectures", "saemake.architectures.loading"),
        ("saemake.training.train", "saemake.training.baselines", "saemake.training.files"),
        (
            "saemake.evaluation.dictionary_learning.judge",
            "saemake.evaluation.sae_bench_core.judge",
            "saemake.evaluation.baselines",
        ),
    ],
    ids=lambda modules: modules[0],
)
def test_the_core_is_imported_without(modules):
    code = f"""
    import importlib, sys
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {ABSENT!r}:
                raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
    sys.meta_path.insert(0, Absent())
    for name in {modules!r}:
        importlib.import_module(name)
    from saemake import architectures
    for name in architectures.names():
        architectures.get(name).trainer()
    assert not set({ABSENT!r}) & set(sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_snakefile_is_read_without_torch(tmp_path):
    """Every run of snakemake and each of its jobs read it; torch and transformers take seconds."""
    command = [Path(sys.executable).with_name("snakemake"), "-n", "results/demo/model.json"]
    command += ["--snakefile", PROJECT / "Snakefile", "--directory", tmp_path]
    command += ["--config", "passes={share: [sparsities, widths], memory_gib: 4}"]
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "saemake.jobs.passes" in imported
    assert not {"torch", "transformers", "matplotlib", "datasets"} & imported
