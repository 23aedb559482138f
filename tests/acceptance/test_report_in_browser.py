"""A report in Chromium: nothing is fetched, tables sort and filter, the keyboard reaches
everything, and axe-core finds nothing serious.

Needs what test_page_in_browser.py needs. REPORT is another report to open, with an SAE top_k k_4,
and SHOTS a folder in which its screenshots stay.
"""

import json
import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from acceptance.test_page_in_browser import CHROMIUM, MODULES, pytestmark  # noqa: F401
from unit.test_figures import KL, sae
from unit.test_report import row

from saemake import figures
from saemake.figures import drawing, style
from saemake.report import page, tables


def written(folder: Path) -> Path:
    rows = [
        row(
            f"{name}/1k/k_{k}",
            None,
            ["a warning"] if k == 4 else [],
            sae_bench_scr={"scr_metric_threshold_20": k / 100},
        )
        for name in ("top_k", "gated")
        for k in (10, 4, 9, 40)
    ]
    drawn = drawing.draw(figures.get(f"{KL}_vs_l0"), pd.DataFrame([sae(8, 8, {KL: 0.5})]), "lm")
    picture = page.Picture("overview", "Overview", style.render(drawn, "svg"), "How to read it.")
    shown = [tables.of_saes(rows, {}), tables.of_warnings(rows)]
    path = folder / "report.html"
    path.write_text(page.html("SAEs of lm", {"SAEs": "8"}, [picture], shown))
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    opened = Path(os.environ["REPORT"]) if "REPORT" in os.environ else written(folder)
    script = Path(__file__).with_name("open_a_report.mjs")
    url, shots = opened.resolve().as_uri(), os.environ.get("SHOTS", str(folder))
    done = subprocess.run(
        ["node", str(script), str(MODULES), str(CHROMIUM), url, shots],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "url": url}


def test_nothing_is_said_and_nothing_fetched(found):
    assert found["said"] == []
    assert {url for url in found["requests"] if not url.startswith("data:")} == {found["url"]}
    assert all(width > 100 for width in found["pictures"])


def test_tables_sort_by_number_and_filter(found):
    ascending, descending = found["sorted"]
    numbers = [float(text) for text in found["before"] if text]
    assert [float(text) for text in ascending["values"] if text] == sorted(numbers)
    assert [float(text) for text in descending["values"] if text] == sorted(numbers, reverse=True)
    assert (ascending["order"], descending["order"]) == ("ascending", "descending")
    assert found["filtered"]
    assert all(name.startswith("top_k") and "k_4" in name for name in found["filtered"])
    assert found["count"] == f"{len(found['filtered'])} of {len(found['before'])} rows"


def test_keyboard_reaches_everything_and_nothing_overflows(found):
    assert found["left"] == []
    assert set(found["overflow"].values()) == {0}


def test_axe_finds_nothing_serious(found):
    for name, violations in found["axe"].items():
        assert [each for each in violations if each["impact"] != "minor"] == [], name
