"""The pages of SAEs through the workflow."""

import json
import re

import pyarrow.parquet as pq
import pytest
from conftest import Workflow, copied

from saemake.__main__ import main

FOLDER = "results/demo/L3/top_k/256"
PAGE = f"{FOLDER}/k_4/features.html"
ASKED = {"features": {"tokens": 1000, "sample": 5, "latents": {"demo/L3/top_k/256/k_4": [7, 250]}}}


@pytest.fixture(scope="module")
def built(begun, tmp_path_factory) -> Workflow:
    """The pages of a sweep."""
    workflow = copied(begun, tmp_path_factory.mktemp("pages"))
    workflow.configure(ASKED)
    workflow.said = workflow.succeed(PAGE)
    return workflow


@pytest.fixture
def saemake(monkeypatch, capsys):
    """A command of `saemake` in this process: its status and output."""

    def run(workflow: Workflow, *arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(workflow.folder)
        status = main([*arguments, "--configfile", workflow.config_file])
        written = capsys.readouterr()
        return status, written.out + written.err

    return run


def test_pages_of_a_sweep_are_made_together_and_link_to_each_other(built):
    started = r"Job \d+: look at the latents of demo/L3/top_k/256 on up to 1,000 tokens"
    assert len(re.findall(started, built.said)) == 1
    pages = {page.parent.name: page for page in (built.folder / FOLDER).glob("k_*/features.html")}
    assert len(pages) > 1
    for name, page in pages.items():
        written = page.read_text()
        for other in pages:
            assert (f'href="../{other}/features.html"' in written) == (other != name)
    rows = pq.read_table(built.folder / FOLDER / "k_4" / "features.parquet").to_pylist()
    assert [row["latent"] for row in rows if row["asked"]] == [7, 250]
    assert 'id="latent-250"' in pages["k_4"].read_text()


def test_commands_know_them(built, saemake):
    assert saemake(built, "why", f"{FOLDER}/k_4") == (0, f"{FOLDER}/k_4: current\n")
    status, said = saemake(built, "store")
    assert status == 0
    assert "\nfeatures " in said
    assert "not named by this config" not in said
    status, said = saemake(built, "plan", PAGE, f"{FOLDER}/k_9/features.html", "--json")
    assert status == 0, said
    planned = json.loads(said)
    assert [job["stage"] for job in planned["jobs"]] == ["training", "pages"]
    # Each token is encoded twice. The first 1,000 are in the one batch of this text.
    text = json.loads(built.read("results/demo/tokens/dictionary_learning/manifest.json"))
    assert planned["jobs"][1]["flops"]["saes"] == 2 * 2 * 128 * 256 * text["tokens"]
    assert planned["processes"]["heavy"] == 2
    assert planned["disk"]["pages"] > 0


def test_a_latent_over_the_width_is_refused_before_anything_runs(built, tmp_path, saemake):
    copy = copied(built, tmp_path)
    copy.configure({"features": {"latents": {"demo/L3/top_k/256/k_4": [256]}}})
    words = (
        "config key 'features.latents.demo/L3/top_k/256/k_4': demo/L3/top_k/256/k_4 has no latent"
        " 256: its width 256 has latents 0 to 255"
    )
    said = copy.fail(PAGE)
    assert words in said
    assert "Job stats" not in said
    status, said = saemake(copy, "store")
    assert status == 2
    assert words in said


def test_other_settings_make_pages_stale_and_nothing_else(built, tmp_path, saemake):
    copy = copied(built, tmp_path)
    copy.configure({"features": {**ASKED["features"], "tokens": 500}})
    status, said = saemake(copy, "why", PAGE, f"{FOLDER}/k_4/ae.pt")
    assert status == 1
    assert "tokens: 1000 -> 500" in said
    assert f"{FOLDER}/k_4/ae.pt: current" in said
