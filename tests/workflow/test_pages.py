"""The pages of SAEs through the workflow."""

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from conftest import Workflow, copied

FOLDER = "results/demo/L3/top_k/256"
ASKED = {"features": {"tokens": 1000, "sample": 5, "latents": {"demo/L3/top_k/256/k_4": [7, 250]}}}


@pytest.fixture(scope="module")
def built(begun, tmp_path_factory) -> Workflow:
    """The pages of a sweep, and that of an SAE that no sweep lists."""
    workflow = copied(begun, tmp_path_factory.mktemp("pages"))
    workflow.configure(ASKED)
    workflow.said = workflow.succeed(
        f"{FOLDER}/k_4/features.html", f"{FOLDER}/k_7/seed_3/features.html"
    )
    return workflow


def saemake(built: Workflow, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "saemake", *arguments, "--configfile", built.config_file],
        cwd=built.folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_pages_of_a_sweep_are_made_together_and_link_to_each_other(built):
    assert built.said.count("look at the latents of demo/L3/top_k/256 on up to 1,000 tokens") == 1
    pages = {page.parent.name: page for page in (built.folder / FOLDER).glob("k_*/features.html")}
    assert len(pages) > 1
    for name, page in pages.items():
        written = page.read_text()
        for other in pages:
            assert (f'href="../{other}/features.html"' in written) == (other != name)
    rows = pq.read_table(built.folder / FOLDER / "k_4" / "features.parquet").to_pylist()
    assert [row["latent"] for row in rows if row["asked"]] == [7, 250]
    assert 'id="latent-250"' in pages["k_4"].read_text()
    assert "Seed</dt><dd>3<" in built.read(f"{FOLDER}/k_7/seed_3/features.html").decode()


def test_pages_are_current_and_named_and_planned_for_nothing(built):
    done = saemake(built, "why", f"{FOLDER}/k_4/features.html", f"{FOLDER}/k_7/seed_3")
    assert done.stdout.count(": current") == 2, done.stdout + done.stderr
    assert "not named by this config" not in saemake(built, "store").stdout
    planned = json.loads(saemake(built, "plan", f"{FOLDER}/k_4/features.html", "--json").stdout)
    assert planned["jobs"] == []
    wanted = [f"{FOLDER}/k_4/features.html", f"{FOLDER}/k_9/features.html"]
    planned = json.loads(saemake(built, "plan", *wanted, "--json").stdout)
    assert [job["stage"] for job in planned["jobs"]] == ["training", "pages"]
    assert planned["jobs"][1]["flops"]["saes"] == 4 * 128 * 256 * planned_tokens(built)


def planned_tokens(built: Workflow) -> int:
    """Tokens of the whole batch that the first 1,000 are in."""
    path = built.folder / "results/demo/tokens/dictionary_learning/manifest.json"
    return json.loads(path.read_text())["tokens"]


def test_a_latent_over_the_width_is_refused_before_anything_runs(built, tmp_path):
    copy = copied(built, tmp_path)
    copy.configure({"features": {"latents": {"demo/L3/top_k/256/k_4": [256]}}})
    words = (
        "config key 'features.latents.demo/L3/top_k/256/k_4': demo/L3/top_k/256/k_4 has no latent"
        " 256: its width 256 has latents 0 to 255"
    )
    said = copy.fail(f"{FOLDER}/k_4/features.html")
    assert words in said
    assert "Job stats" not in said
    done = saemake(copy, "store")
    assert done.returncode != 0
    assert words in done.stderr


def test_other_settings_make_pages_stale_and_nothing_else(built, tmp_path):
    copy = copied(built, tmp_path)
    copy.configure({"features": {"tokens": 500}})
    said = copy.succeed("-n", f"{FOLDER}/k_4/features.html", f"{FOLDER}/k_4/ae.pt")
    assert "features__demo__top_k " in said
    assert "pages__demo__top_k " in said
    assert "train__" not in said
    done = saemake(copy, "why", f"{FOLDER}/k_4/features.html")
    assert "tokens: 1000 -> 500" in done.stdout, done.stdout
