"""The demo with all eight architectures, built once for all acceptance tests."""

import json
import time

import pytest
from conftest import Workflow

from saemake import architectures


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """What `make demo` builds, and the other five architectures beside it."""
    workflow = Workflow(tmp_path_factory.mktemp("demo"))
    over = {"models": {"demo": {"suite": {"architectures": architectures.names()}}}}
    workflow.write(over)
    started = time.monotonic()
    workflow.succeed("all", "--cores", "2")
    print(f"\ndemo, all eight: {time.monotonic() - started:.0f} s")
    return workflow


@pytest.fixture(scope="session")
def sweeps(demo):
    """The rows of each architecture's sweep, by L0."""
    tables = {
        name: json.loads(demo.read(f"results/demo/L3/{name}/1k/metrics.json"))
        for name in architectures.names()
    }
    for rows in tables.values():
        for row in rows:
            print(
                f"| {row['architecture']}/{row['width']}/{row['sparsity']} | {row['l0']:.1f} |"
                f" {row['loss_recovered']:.4f} | {row['frac_variance_explained']:.4f} |"
                f" {row['frac_alive']:.3f} |{' warned' if row['warnings'] else ''}"
            )
    return {name: sorted(rows, key=lambda row: row["l0"]) for name, rows in tables.items()}
