"""What tests share: the project's folder, the demo's LM, and a way to run the workflow for real."""

import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

if not torch.cuda.is_available():
    # Read when Triton is imported, by whatever module is first.
    os.environ["TRITON_INTERPRET"] = "1"

from saemake import architectures
from saemake.config.checks import read
from saemake.config.config import Config
from saemake.llm.weights import Weights
from saemake.paths.catalogue import COLUMNS

PROJECT = Path(__file__).resolve().parents[1]
LAYER = "results/demo/L3"
DEMO_LM = PROJECT / "resources" / "demo" / "lm"
CONFIG_FILE = PROJECT / "config" / "config.yaml"

# Small enough for a test, real in everything: the demo's LM and text, training, evaluation.
SMALL: dict[str, Any] = {
    "models": {
        "demo": {
            "train_tokens": 20_480,
            "buffer_tokens": 8_192,
            "evaluations": {
                "dictionary_learning": {"documents": 10},
                "sae_bench_core": {"reconstruction_batches": 1, "variance_batches": 2},
            },
            "baselines": {"pca_tokens": 4_096},
            "training": {"norm_batches": 2, "warmup_steps": 5},
            "architectures": {
                name: dict(architectures.get(name).example) for name in architectures.names()
            },
            "suite": {"widths": ["256"], "pages": False},
        }
    },
    "widths": {"256": 256},
    "logging": {"every_steps": 10},
}

# What most published SAEs train in. The demo trained in it too before 2026-11-28.
DEMO_IN_BFLOAT16: dict[str, Any] = {"models": {"demo": {"training": {"autocast": "bfloat16"}}}}


@pytest.fixture(autouse=True)
def _torch_threads():
    torch.set_num_threads(1)


def merged(over: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, as Snakemake lays one config file over another."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            result[key] = merged(value, base[key])
        else:
            result[key] = value
    return result


def raw_config(over: dict[str, Any] | None = None) -> dict[str, Any]:
    return merged(over or {}, yaml.safe_load(CONFIG_FILE.read_text()))


@pytest.fixture
def config() -> Config:
    """The project's own configuration."""
    return read(raw_config(), PROJECT, [CONFIG_FILE])


@pytest.fixture(scope="session")
def demo_weights() -> Weights:
    return Weights("demo", DEMO_LM, None, "float32")


def write_catalogue(path: Path, rows: list[dict[str, Any]]) -> None:
    """A catalogue of published SAEs."""
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


@dataclass
class Workflow:
    """The workflow in a folder of its own, with the small config and what a test lays over it."""

    folder: Path
    config_file: str = "small.yaml"

    def configure(self, over: dict[str, Any] | None = None) -> None:
        """Lay `over` over the small config."""
        self.write(merged(over or {}, SMALL))

    def write(self, content: dict[str, Any]) -> None:
        """Have this over the project's config, and nothing else."""
        (self.folder / self.config_file).write_text(yaml.safe_dump(content))

    def command(self, *arguments: str) -> list[str]:
        """snakemake with those arguments (targets first)."""
        return [
            str(Path(sys.executable).with_name("snakemake")),
            *arguments,
            *([] if "--cores" in arguments else ["--cores", "1"]),
            "--snakefile",
            str(PROJECT / "Snakefile"),
            "--workflow-profile",
            str(PROJECT / "profiles" / "default"),
            "--configfile",
            self.config_file,
        ]

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "HF_HUB_OFFLINE": "1", **more}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run that; status and all output."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def succeed(self, *arguments: str, **environment: str) -> str:
        done = self.run(*arguments, **environment)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def fail(self, *arguments: str, **environment: str) -> str:
        done = self.run(*arguments, **environment)
        assert done.returncode != 0, done.stdout
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    def trained(self, log: str) -> str:
        """The line of a train job's log that says how many SAEs it trained."""
        lines = (self.folder / "logs" / "train" / log).read_text().splitlines()
        return next(line for line in lines if "are in the store; training" in line)

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()


def of_saes(table: bytes) -> list[dict[str, Any]]:
    """The rows of a sweep's metrics.json: each SAE's as its loader has it, no baselines."""
    rows = [row for row in json.loads(table) if row["width"] is not None]
    return list({row["name"]: row for row in reversed(rows)}.values())[::-1]


@pytest.fixture
def fresh(tmp_path: Path) -> Workflow:
    """Nothing but the config."""
    made = Workflow(tmp_path)
    made.configure()
    return made


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """What every SAE of the demo at layer 3 needs: its model, texts and baselines. Not to be
    changed."""
    made = Workflow(tmp_path_factory.mktemp("begun"))
    made.configure()
    made.succeed("results/demo/tokens/train/manifest.json", f"{LAYER}/baselines/metrics.json")
    return made


def copied(source: Workflow, folder: Path) -> Workflow:
    """A copy that Snakemake and the store take for the original: with its times and hard links."""
    subprocess.run(["cp", "-a", f"{source.folder}/.", str(folder)], check=True)
    return Workflow(folder)


@pytest.fixture
def workflow(begun: Workflow, tmp_path: Path) -> Workflow:
    """A copy of `begun`."""
    return copied(begun, tmp_path)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """What `make demo` builds but the pages, and all other architectures beside it. Matching
    pursuit takes a matrix product a latent: it has the small sparsities only."""
    workflow = Workflow(tmp_path_factory.mktemp("demo"))
    suite = {"architectures": architectures.names(), "pages": False}
    few = {"matching_pursuit": {"sweep": [2, 8]}}
    workflow.write({"models": {"demo": {"suite": suite, "architectures": few}}})
    started = time.monotonic()
    workflow.succeed("all", "--cores", "2")
    print(f"\ndemo, all architectures: {time.monotonic() - started:.0f} s")
    return workflow


@pytest.fixture(scope="session")
def sweeps(demo):
    """The rows of each architecture's sweep, by L0."""
    tables = {
        name: of_saes(demo.read(f"results/demo/L3/{name}/1k/metrics.json"))
        for name in architectures.names()
    }
    for rows in tables.values():
        for row in rows:
            print(
                f"| {row['architecture']}/{row['width']}/{row['sparsity']} |"
                f" {row['dictionary_learning']['l0']:.1f} |"
                f" {row['dictionary_learning']['frac_recovered']:.4f} |"
                f" {row['dictionary_learning']['frac_variance_explained']:.4f} |"
                f" {row['dictionary_learning']['frac_alive']:.3f} |"
                f" {row['sae_bench_core']['ce_loss_score']:.4f} |"
                f"{' warned' if row['warnings'] else ''}"
            )
    return {
        name: sorted((row["dictionary_learning"] for row in rows), key=lambda row: row["l0"])
        for name, rows in tables.items()
    }
