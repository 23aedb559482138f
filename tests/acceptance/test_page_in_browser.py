"""The page of an SAE in Chromium: nothing is fetched, it sorts and searches, the keyboard reaches
everything, and axe-core finds nothing serious.

Needs Debian's chromium, and `make .venv-browser/peers`. PAGE is another page to open, and SHOTS a
folder in which its screenshots stay.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import PROJECT
from unit.test_evaluation import tokens
from unit.test_features import SAE, Relu, recipe

from saemake.activations.dropping import Dropping
from saemake.features import gather, lens, page, text
from saemake.features.tokens import TokenTexts
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel, load_tokenizer

CHROMIUM = shutil.which("chromium")
MODULES = PROJECT / ".venv-browser"
pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
    pytest.mark.skipif(
        not (MODULES / "node_modules" / "axe-core").is_dir(),
        reason="no axe-core here: make .venv-browser/peers",
    ),
]
DOCUMENT = "The state of the union is strong.\nWe will </script><b>cut</b> taxes & “spend” less. "


def written(folder: Path, weights) -> Path:
    """The page of a small SAE of random directions, of latents that fire on few tokens."""
    device = torch.device("cpu")
    tokenizer = load_tokenizer(weights)
    documents = [tokenizer(DOCUMENT * times)["input_ids"] for times in (1, 2, 3)]
    lm = LanguageModel(weights, Hookpoint(3), device, whole=False)
    seen = text.captured(lm, tokens(folder, documents), Dropping(), 2, 1000, "test")
    texts, vocabulary = TokenTexts(tokenizer, "demo"), len(tokenizer)
    over = {"sample": 12, "window": 20, "contexts": 3, "latents": [200]}
    codec = Relu(width=256, bias=-1.0)
    shown = gather.Shown(recipe(**over), codec, seen, texts, lens.lens_of(lm, vocabulary), device)
    rows, summary = shown.rows(), shown.summary("")
    assert len(rows) >= 12
    path = folder / "features.html"
    path.write_text(page.html(SAE, rows, summary, [SAE]))
    return path


@pytest.fixture(scope="module")
def found(demo_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    opened = Path(os.environ["PAGE"]) if "PAGE" in os.environ else written(folder, demo_weights)
    shots = os.environ.get("SHOTS", str(folder))
    script = Path(__file__).with_name("open_a_page.mjs")
    done = subprocess.run(
        ["node", str(script), str(MODULES), str(CHROMIUM), opened.resolve().as_uri(), shots],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "url": opened.resolve().as_uri()}


def test_nothing_is_said_and_nothing_fetched(found):
    assert found["said"] == []
    assert {url for url in found["requests"] if not url.startswith("data:")} == {found["url"]}


def test_each_column_sorts_both_ways(found):
    for at, presses in enumerate(found["sorting"].values()):
        first, second = (press["values"] for press in presses)
        # The list begins in the order of the latents, so the first press there turns it round.
        assert first == sorted(first, reverse=True)
        assert second == sorted(first)
        assert len(set(first)) > 1
        for press, said in zip(presses, ("descending", "ascending"), strict=True):
            assert press["order"] == [said if place == at else "none" for place in range(3)]
            assert press["rows"] == press["cards"]


def test_search_finds_tokens_and_numbers(found):
    searched = found["searching"]["found"]
    (words, by_token), by_number, nothing, everything = (
        (words, result) if place == 0 else result
        for place, (words, result) in enumerate(searched.items())
    )
    assert words.strip()
    assert 0 < len(by_token["rows"]) == by_token["has"]
    assert int(found["searching"]["number"]) in by_number["rows"]
    assert (nothing["rows"], nothing["cards"]) == ([], [])
    for result in searched.values():
        assert result["rows"] == result["cards"]
        assert result["count"].startswith(str(len(result["rows"])))
    after = found["searching"]["after"]
    assert len(after["rows"]) == len(everything["rows"])
    assert after["focus"] == f"name-{found['searching']['number']}"


def test_keyboard_reaches_everything(found):
    tabbed = found["tabbing"]
    assert tabbed["left"] == []
    assert tabbed["all"] > 12 * 4
    assert tabbed["first"][0] == "Skip to the latents"


def test_keys_and_pointer_read_activations(found):
    read = found["reading"]
    assert read["before"].startswith("context ")
    assert read["after"] == read["before"]
    assert all("of the largest" in note for note in [*read["notes"], read["hovered"]])
    assert "100 % of the largest" in read["hovered"]


def test_it_is_read_without_scripts_and_on_a_narrow_screen(found):
    assert found["without"] >= 12
    assert set(found["overflow"].values()) == {0}


def test_axe_finds_nothing_serious(found):
    for name, violations in found["axe"].items():
        assert [each for each in violations if each["impact"] != "minor"] == [], name
