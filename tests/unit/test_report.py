"""The report's tables, page and captions."""

import html.parser
import json

import pytest

from saemake import figures
from saemake.evaluation.sae_bench_core import SaeBenchCoreFigures
from saemake.metrics import rows
from saemake.report import page, tables
from saemake.report.captions import caption, title

HOSTILE = '</td><script>alert("x")</script>'


def row(name, inference=None, warnings=(), **judged):
    content = {
        "name": f"lm/L3/{name}",
        "model": "lm",
        "layer": 3,
        "architecture": name.split("/")[0],
        "width": None if name.startswith("baselines") else "1k",
        "latents": 1024,
        "sparsity": None,
        "steps": None,
        "tokens": None,
        "inference": inference,
        "warnings": list(warnings),
        "evaluations": {},
        **judged,
    }
    (read,) = rows.read(json.dumps([content]).encode())
    return read


def scr(value):
    return {"sae_bench_scr": {"scr_metric_threshold_20": value}}


def texts(table):
    return [[cell.text for cell in cells] for cells in table.rows]


def test_the_table_of_saes_has_the_columns_that_a_row_has():
    found = tables.of_saes(
        [
            row("top_k/1k/k_8", "top_k", **scr(0.25)),
            row("baselines/pca"),
            row("top_k/1k/k_8", "threshold", ["one", "two"]),
        ],
        {"lm/L3/top_k/1k/k_8": "top_k/1k/k_8/features.html"},
    )
    assert found.heads == ["SAE", "chosen by", "SCR, 20", "warnings"]
    assert texts(found) == [
        ["top_k/1k/k_8", "top_k, in figures", "0.25", "0"],
        ["top_k/1k/k_8", "threshold", "", "2"],
        ["baselines/pca", "", "", "0"],
    ]
    assert [cells[0].link for cells in found.rows] == ["top_k/1k/k_8/features.html"] * 2 + [""]
    assert found.rows[0][2].number == 0.25


def alive(share):
    return {"sae_bench_core": dict.fromkeys(SaeBenchCoreFigures.model_fields, 1) | share}


def test_columns_that_are_shown_are_explained_and_others_are_not():
    found = tables.of_saes([row("top_k/1k/k_8", **alive({"frac_alive": 0.75}))], {})
    dead = found.heads.index("dead latents (core)")
    assert [cells[dead].text for cells in found.rows] == ["0.25"]
    explained = ["chosen by", "(core)", "L0", "loss recovered", "KL score", "dead latents"]
    assert list(found.terms) == [*explained, "warnings"]
    text = page.html("", {}, [], [found])
    assert "<dt>dead latents</dt><dd>The share of latents that never fire" in text
    assert "<dl class=" not in page.html("", {}, [], [tables.of_warnings([])]).partition("<main")[2]


@pytest.mark.parametrize("head", [column.head for column in tables.COLUMNS])
def test_every_column_has_an_explanation(head):
    assert tables._terms([head])[head.removesuffix(" (core)")]


@pytest.mark.parametrize(("share", "count"), [(0.9, 0), (0.875, 1)])
def test_many_dead_latents_are_among_the_warnings(share, count):
    judged = alive({"frac_alive": share})
    rows = [row("top_k/1k/k_8", None, ["one"], **judged), row("baselines/pca", **judged)]
    told = ["sae_bench_core: 12% of the latents are dead on the evaluation's text"] * count
    assert [cells[2].text for cells in tables.of_warnings(rows).rows] == ["one", *told]
    assert texts(tables.of_saes(rows, {}))[0][-1] == str(1 + count)


def test_warnings_have_a_row_each():
    found = tables.of_warnings([row("a/1k/k_8", None, ["one", "two"]), row("b/1k/k_8")])
    assert texts(found) == [["a/1k/k_8", "", "one"], ["a/1k/k_8", "", "two"]]


def test_comparisons_show_both_sides():
    compared = {
        "architecture": "top_k",
        "width": "16k",
        "sparsity": "k_20",
        "verdict": "within",
        "repository": "me/saes",
        "path": "a/trainer_0",
        "figures": {
            "sae_bench_core": {
                "l0": {"rebuilt": 20.0, "catalogue": 20.5},
                "loss_recovered": {"rebuilt": 0.96, "catalogue": None},
            }
        },
    }
    assert texts(tables.of_comparisons([compared])) == [
        [
            *("top_k/16k/k_20", "within", "20", "20.5", "0.96", ""),
            *("sae_bench_core", "me/saes/a/trainer_0"),
        ]
    ]


def test_provenance_is_short_says_if_the_code_was_edited_and_holds_no_time():
    record = {
        "recipe_hash": "a" * 64,
        "ae_sha256": "b" * 64,
        "device": "cpu AVX2",
        "software": {"torch": "2.13.0", "python": "3.11.7", "datasets": "5"},
        "git": [
            *[{"commit": "c" * 40, "clean": True}] * 2,  # resumed
            {"commit": "d" * 40, "clean": False},
        ],
        "pass_wall_time_s": 91.3,
    }
    (cells,) = texts(tables.of_provenance([("top_k/1k/k_8", record)]))
    assert cells == [
        "top_k/1k/k_8",
        "a" * 16,
        "b" * 16,
        "cpu AVX2",
        "python 3.11.7, torch 2.13.0",
        f"{'c' * 12}, {'d' * 12} (edited)",
    ]


class Seen(html.parser.HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def test_the_page_escapes_what_it_shows_and_fetches_nothing():
    table = tables.Table("t", HOSTILE, HOSTILE, [HOSTILE], [[tables.Cell(HOSTILE, link=HOSTILE)]])
    picture = page.Picture("overview", HOSTILE, b"<svg onload='x'/>", HOSTILE)
    text = page.html(HOSTILE, {HOSTILE: HOSTILE}, [picture], [table])
    seen = Seen(text)
    assert seen.tags.count("script") == 1
    assert text.count("alert") == text.count("&lt;script&gt;alert") > 4
    sources = [value for name, value in seen.attributes if name in ("src", "href")]
    assert all(value.startswith(("data:", "#")) or value == HOSTILE for value in sources)
    assert "http" not in page.STYLE + page.SCRIPT
    (policy,) = [v for n, v in seen.attributes if n == "content" and v.startswith("default-src")]
    assert "default-src 'none'; img-src data:;" in policy
    assert text == page.html(HOSTILE, {HOSTILE: HOSTILE}, [picture], [table])


@pytest.mark.parametrize("name", figures.names())
def test_every_figure_has_words_on_how_to_read_it(name):
    figure = figures.get(name)
    drawn = figures.at_width(name, "16k") if figure.at_width else name
    assert len(caption(drawn)) > 20
    assert "_" not in title(drawn)
    assert caption("sae_bench_core.mse_vs_l0").startswith("mse (sae_bench_core), against L0.")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("core_loss_recovered_vs_l0", "Loss recovered (SAE Bench core) against L0"),
        ("dead_latents_vs_l0", "Share of dead latents against L0"),
        ("sae_bench_scr_vs_l0", "SCR, 20 latents against L0"),
        ("loss_recovered_vs_l0_by_width", "Loss recovered against L0 by width"),
        ("loss_recovered_vs_tokens", "Loss recovered against tokens"),
        ("training_curves", "The course of the training"),
    ],
)
def test_figures_have_titles_in_words(name, words):
    assert title(name) == words


def test_captions_say_which_way_of_choosing_latents_is_shown():
    shown = ["overview", "core_loss_recovered_vs_l0", "dead_latents_vs_l0", "latent_densities"]
    for name in [*shown, "sae_bench_core.mse_vs_l0"]:
        assert "the k largest for top_k, those above the threshold for" in caption(name)
