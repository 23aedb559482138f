"""One list of pins: pip, conda and the containers install the same."""

import re
import runpy

import pytest
import yaml
from conftest import PROJECT

ENVS = PROJECT / "envs"
PROGRAM = runpy.run_path(str(ENVS / "conda.py"))
PINS = (ENVS / "requirements.txt").read_text().split()


@pytest.mark.parametrize("file", sorted(PROGRAM["FILES"]))
def test_a_conda_file_is_what_the_program_writes(file: str) -> None:
    assert (ENVS / file).read_text() == PROGRAM["content"](file)


@pytest.mark.parametrize("file", sorted(PROGRAM["FILES"]))
def test_a_conda_file_refers_to_no_other_file(file: str) -> None:
    """Snakemake copies it to another folder."""
    (*_, pip) = yaml.safe_load((ENVS / file).read_text())["dependencies"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pip["pip"])


def test_conda_has_the_pins() -> None:
    described = yaml.safe_load((ENVS / "saemake.yaml").read_text())["dependencies"]
    assert described[-1] == {"pip": PINS}
    python = (ENVS / "Dockerfile").read_text().partition("python:")[2].partition("-")[0]
    assert described[0] == f"python={python}"


def _docker() -> tuple[str, set[str], list[str]]:
    text = (ENVS / "Dockerfile").read_text()
    base = re.search(r"^ARG BASE=docker\.io/library/(\S+)$", text, re.M)
    assert base is not None
    copied = re.findall(r"^COPY (.+) (/\S+)$", text, re.M)
    files = {file for sources, _ in copied for file in sources.split()}
    return base[1], files, _installed(text)


def _apptainer() -> tuple[str, set[str], list[str]]:
    text = (ENVS / "apptainer.def").read_text()
    base = re.search(r"^From: (\S+)$", text, re.M)
    assert base is not None
    section = text.partition("%files\n")[2].partition("\n\n")[0]
    return base[1], {line.split()[0] for line in section.splitlines()}, _installed(text)


def _installed(text: str) -> list[str]:
    return re.findall(r"--requirement (\S+)|--editable (\S+)", text)


def test_both_containers_hold_the_same() -> None:
    docker, apptainer = _docker(), _apptainer()
    assert docker == apptainer
    _, files, installed = docker
    assert "envs/requirements.txt" in files
    assert installed == [("/opt/requirements.txt", ""), ("", "/opt/saemake")]
    assert all((PROJECT / file).exists() for file in files)


def test_the_containers_hold_all_of_the_workflow() -> None:
    """What the Snakefile and the package read."""
    wanted = {"Snakefile", "pyproject.toml", "config", "envs", "profiles", "resources", "workflow"}
    _, files, _ = _docker()
    assert wanted | {"saemake", "snakemake_logger_plugin_saemake"} <= files
