"""Every figure of the registry, drawn from small tables: architectures' marks, and the bytes."""

import itertools
import json

import numpy as np
import pytest
from matplotlib.colors import to_hex

from saemake import architectures, figures
from saemake.base.errors import SaemakeError
from saemake.figures import drawing, palette

# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as it is seen.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.072175],
        [0.0193339, 0.119192, 0.9503041],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(colour, seen):
    """A colour in CIELAB, after the simulation of how it is seen."""
    rgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(seen @ linear, 0, 1) / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def row(architecture, sparsity, tokens=1000):
    """A row of metrics.json, and a comparison, in one."""
    quality = sparsity / 10 + tokens / 1e5
    both = {
        "l0": {"rebuilt": sparsity, "catalogue": sparsity + 1},
        "loss_recovered": {"rebuilt": quality, "catalogue": quality / 2},
    }
    return {
        "name": f"{architecture} {sparsity} {tokens}",
        "architecture": architecture,
        "width": "1k",
        "sparsity": f"k_{sparsity}",
        "tokens": tokens,
        "dictionary_learning": {
            "l0": sparsity,
            "frac_recovered": quality,
            "frac_variance_explained": quality,
        },
        "sae_bench_core": {"l0": sparsity, "ce_loss_score": quality},
        "verdict": "reproduced",
        "decoder": {"published_in_rebuilt": {"mean_max_cosine": quality}},
        "figures": {"sae_bench_core": both, "dictionary_learning": both},
    }


def tables(folder, figure, names):
    """The files that a figure of these architectures reads."""
    folder.mkdir(exist_ok=True)
    paths = []
    for name in names:
        rows = [row(name, k, tokens) for k in (2, 4) for tokens in (0, 1000)]
        if figures.get(figure).shows == "published":
            contents = rows[1::2]
        else:
            baseline = {**rows[0], "name": "identity", "width": None}
            contents = [[*rows, baseline]]
        for place, content in enumerate(contents):
            paths.append(folder / f"{name}_{place}.json")
            paths[-1].write_text(json.dumps(content))
    return paths


def drawn_marks(folder, figure, names):
    """The colours with their markers in a figure."""
    drawn = drawing.draw(figure, drawing.table(figure, tables(folder, figure, names)), "title")
    lines = [line for axes in drawn.axes for line in axes.lines]
    bars = [bar for axes in drawn.axes for bar in axes.patches]
    seen = {(to_hex(line.get_color()).upper(), line.get_marker()) for line in lines}
    assert {to_hex(bar.get_facecolor()).upper() for bar in bars} <= {colour for colour, _ in seen}
    legend = [
        line for axes in drawn.axes if axes.get_legend() for line in axes.get_legend().get_lines()
    ]
    assert seen <= {(to_hex(line.get_color()).upper(), line.get_marker()) for line in legend}
    return seen


def pairs(names):
    marks = palette.marks()
    return {(marks[name].colour, marks[name].marker) for name in names}


@pytest.mark.parametrize("figure", figures.FIGURES)
@pytest.mark.parametrize("name", architectures.names())
def test_an_architecture_has_its_mark_in_every_figure(figure, name, tmp_path):
    """Alone, and beside others."""
    others = [name, "top_k", "jump_relu"]
    assert drawn_marks(tmp_path / "alone", figure, [name]) == pairs([name])
    beside = drawn_marks(tmp_path / "beside", figure, list(dict.fromkeys(others)))
    assert beside == pairs(others)


def test_all_registered_have_marks_of_their_own():
    marks = palette.marks()
    assert sorted(marks) == architectures.names()
    assert len({mark.colour for mark in marks.values()}) == len(marks)
    assert len({mark.marker for mark in marks.values()}) == len(marks)


def test_an_architecture_of_somebody_gets_the_next_mark(monkeypatch):
    before = palette.marks()
    monkeypatch.setitem(architectures.registry.known, "abs_top_k", object)
    assert palette.marks() == {
        **before,
        "abs_top_k": palette.Mark(palette.COLOURS[8], palette.MARKERS[8]),
    }
    for place in range(100):
        monkeypatch.setitem(architectures.registry.known, f"more_{place:02}", object)
    marks = palette.marks()
    assert {name: marks[name] for name in before} == before
    assert len(set(marks.values())) == len(marks) == 8 + 1 + 100


def test_an_unknown_architecture_has_no_mark():
    with pytest.raises(SaemakeError, match="no architecture 'topk'; did you mean 'top_k'"):
        palette.mark("topk")


@pytest.mark.parametrize("seen", SEEN)
def test_colours_stay_apart_in_colour_blindness(seen):
    """A CIELAB distance of 10 is seen at a glance."""
    nearest = min(
        np.linalg.norm(lab(first, SEEN[seen]) - lab(second, SEEN[seen]))
        for first, second in itertools.combinations(palette.COLOURS, 2)
    )
    print(f"\n{seen}: {nearest:.1f}")
    assert nearest > 15


@pytest.mark.parametrize("figure", figures.FIGURES)
def test_the_same_tables_give_the_same_bytes(figure, tmp_path):
    paths = tables(tmp_path, figure, ["top_k", "gated"])
    first, second = (drawing.files(figure, paths, "title") for _ in range(2))
    assert first == second
    assert first["pdf"].startswith(b"%PDF")
    assert b"<svg" in first["svg"]


def test_an_unknown_figure_is_told_the_nearest():
    with pytest.raises(
        SaemakeError, match="no figure 'decoder_mach'; did you mean 'decoder_match'"
    ):
        figures.get("decoder_mach")


def test_every_figure_is_under_results_or_under_published():
    assert sorted([*figures.names(), *figures.PUBLISHED]) == sorted(figures.FIGURES)
