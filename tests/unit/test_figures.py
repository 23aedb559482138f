"""Every figure of the registry, drawn from small tables: architectures' marks, and the bytes."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from saemake import architectures, figures
from saemake.base.errors import SaemakeError
from saemake.figures import course, drawing, palette, seeds, style

# Every figure by a name that it can be drawn by.
DRAWN = [
    *(
        figures.at_width(name, "1k") if figure.at_width else name
        for name, figure in figures.FIGURES.items()
        if figure.kind not in ("histogram", "curves")  # without colours of architectures
    ),
    "sae_bench_core.kl_div_score_vs_l0",
    "sae_bench_core.kl_div_score_vs_l0_by_width",
    "sae_bench_core.kl_div_score_vs_tokens",
    "sae_bench_core.kl_div_score_vs_width",
    "loss_recovered_vs_l0_by_width",
]
# One of each kind.
OF_KINDS = {figures.get(name).kind: name for name in DRAWN}.values()
WITH_PANELS = [name for name in DRAWN if figures.get(name).panels]

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


LATENTS = {"1k": 1024, "2k": 2048}


def row(architecture, sparsity, tokens, width, columns):
    """A row of metrics.json, a comparison and a pair of seeds in one."""
    quality = sparsity / 10 + tokens / 1e5
    both = {
        "l0": {"rebuilt": sparsity, "published": sparsity, "catalogue": sparsity + 1},
        "loss_recovered": {"rebuilt": quality, "catalogue": quality / 2},
    }
    name = f"lm/L0/{architecture}/{width}/k_{sparsity}"
    row = {
        "name": name if tokens else f"{name}/checkpoints/ae_0",
        "architecture": architecture,
        "width": width,
        "latents": LATENTS[width],
        "sparsity": f"k_{sparsity}",
        "tokens": tokens,
        "dictionary_learning": {
            "l0": sparsity,
            "frac_recovered": quality,
            "frac_variance_explained": quality,
        },
        "sae_bench_core": {"l0": sparsity},
        "verdict": "reproduced",
        "decoder": {"published_in_rebuilt": {"mean_max_cosine": quality}},
        "figures": {"sae_bench_core": both, "dictionary_learning": both},
    }
    for column in columns:
        evaluation, _, name = column.partition(".")
        if not name:
            row |= {column: quality, "l0": sparsity}
            continue
        row.setdefault(evaluation, {})[name] = quality
        sides = {"rebuilt": quality, "published": quality / 2, "file": quality / 3}
        compared = row.setdefault("sae_bench", {"figures": {}})["figures"]
        compared.setdefault(evaluation, {})[name] = sides
    return row


def tables(folder, figure, names, panels=None):
    """The files that a figure of these architectures reads, with the columns of so many panels
    (all)."""
    folder.mkdir(exist_ok=True)
    registered = figures.get(figure)
    shows = registered.shows
    columns = [panel.column for panel in registered.panels[:panels]]
    columns += [registered.y] if registered.y else []
    paths = []
    for name in names:
        steps = (0, 1000) if shows == "training" else (1000,)
        rows = [
            row(name, k, tokens, width, columns)
            for width in LATENTS
            for k in (2, 4)
            for tokens in steps
        ]
        baseline = {**rows[-1], "width": None, "sparsity": None}
        baselines = [
            {**baseline, "name": each, "architecture": each} for each in ("identity", "pca")
        ]
        beside_saes = [] if shows == "seeds" else baselines
        contents = rows if shows == "published" else [[*rows, *beside_saes]]
        for place, content in enumerate(contents):
            paths.append(folder / f"{name}_{place}.json")
            paths[-1].write_text(json.dumps(content))
        if registered.beside:
            paths += [beside(folder / row["name"], registered) for row in rows]
    return paths


def beside(folder, figure):
    """The training.csv of an SAE."""
    folder.mkdir(parents=True)
    path = folder / figure.beside
    columns = {panel.column: [0.5, 0.25] for panel in figure.panels}
    pd.DataFrame({"tokens": [0, 1000], "sparsity": [1.0, 1.0], **columns}).to_csv(path, index=False)
    return path


def drawn_marks(folder, figure, names, panels=None):
    """The colours with their markers in a figure."""
    paths = tables(folder, figure, names, panels)
    drawn = drawing.draw(figures.get(figure), drawing.table(figures.get(figure), paths), "title")
    lines = [line for axes in drawn.axes for line in axes.lines]
    bars = [bar for axes in drawn.axes for bar in axes.patches]
    seen = {mark_of(line) for line in lines if line.get_marker() != "None"}
    colours = {colour for colour, _ in seen}
    assert {to_hex(bar.get_facecolor()).upper() for bar in bars} <= colours
    # Lines without markers: single SAEs, PCA, a difference of 0.
    assert {colour for colour, _ in map(mark_of, lines)} <= {*colours, style.GREY}
    legends = [*drawn.legends, *(axes.get_legend() for axes in drawn.axes if axes.get_legend())]
    assert len(legends) == 1
    assert seen <= {mark_of(line) for line in legends[0].get_lines()}
    return seen


def mark_of(line):
    return to_hex(line.get_color()).upper(), line.get_marker()


def pairs(names):
    marks = palette.marks()
    return {(marks[name].colour, marks[name].marker) for name in names}


@pytest.mark.parametrize("figure", DRAWN)
@pytest.mark.parametrize("name", architectures.names())
def test_an_architecture_alone_has_its_mark_in_every_figure(figure, name, tmp_path):
    assert drawn_marks(tmp_path, figure, [name], panels=2) == pairs([name])


@pytest.mark.parametrize("figure", DRAWN)
def test_architectures_side_by_side_have_their_marks_in_every_figure(figure, tmp_path):
    names = architectures.names()
    assert drawn_marks(tmp_path, figure, names) == pairs(names)


def test_all_registered_have_marks_of_their_own():
    marks = palette.marks()
    assert sorted(marks) == architectures.names()
    assert len({mark.colour for mark in marks.values()}) == len(marks)
    assert len({mark.marker for mark in marks.values()}) == len(marks)


def test_the_first_eight_keep_their_marks():
    """Figures that were published stay comparable, whichever architectures are added."""
    marks = palette.marks()
    eight = palette.OURS[:8]
    assert eight[:3] == ("top_k", "batch_top_k", "matryoshka_batch_top_k")
    assert [marks[name].colour for name in eight] == list(palette.COLOURS[:8])
    assert "".join(marks[name].marker for name in eight) == "os^DvPX*"


def test_an_architecture_of_somebody_gets_the_next_mark(monkeypatch):
    before = palette.marks()
    monkeypatch.setitem(architectures.registry.known, "mine", object)
    place = len(before)
    assert palette.marks() == {
        **before,
        "mine": palette.Mark(
            palette.COLOURS[place % len(palette.COLOURS)],
            palette.MARKERS[place % len(palette.MARKERS)],
        ),
    }
    for place in range(100):
        monkeypatch.setitem(architectures.registry.known, f"more_{place:02}", object)
    marks = palette.marks()
    assert {name: marks[name] for name in before} == before
    assert len(set(marks.values())) == len(marks) == len(before) + 1 + 100


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


@pytest.mark.parametrize("figure", OF_KINDS)
def test_the_same_tables_give_the_same_bytes(figure, tmp_path):
    paths = tables(tmp_path, figure, ["top_k", "gated"], panels=3)
    first, second = (drawing.files(figures.get(figure), paths, "title") for _ in range(2))
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


CORE, ABSORPTION, SCR = (panel.column for panel in (figures.CORE, figures.ABSORPTION, figures.SCR))
TPP, PROBING = figures.TPP.column, figures.PROBING.column


def sae(sparsity, l0, columns, architecture="top_k", width="16k", tokens=1000):
    """A row of drawing.table."""
    name = f"lm/L0/{architecture}/{width}/k_{sparsity}"
    return {
        "name": name,
        "architecture": architecture,
        "width": width,
        "latents": {"4k": 4096, "16k": 16384, "65k": 65536}[width],
        "sparsity": f"k_{sparsity}",
        "tokens": tokens,
        "l0": l0,
        **columns,
    }


def pca(columns):
    baseline = {"name": "lm/L0/baselines/pca", "architecture": "pca", "width": None}
    return {**baseline, "latents": 512, "sparsity": None, "tokens": None, "l0": 400, **columns}


def draw(name, rows):
    return drawing.draw(figures.get(name), pd.DataFrame(rows), "lm, layer 0")


def titles(drawn):
    return [axes.get_title() for axes in drawn.axes]


def keys(drawn):
    return [text.get_text() for text in drawn.legends[0].get_texts()]


def marked(axes):
    """The lines with markers of architectures, as lists of x and y."""
    lines = [line for line in axes.lines if line.get_marker() in palette.MARKERS]
    return [[pytest.approx(line.get_xdata()), pytest.approx(line.get_ydata())] for line in lines]


def unmarked(axes, dash="-"):
    """The lines with these dashes and no markers, as lists of x and y."""
    lines = [
        line for line in axes.lines if (line.get_marker(), line.get_linestyle()) == ("None", dash)
    ]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]


def test_panels_show_pca_as_a_dashed_line_and_one_minus_a_flipped_figure():
    noise = {f"noise.{ABSORPTION}.standard_deviation": 0.0625}
    rows = [
        sae(80, 80, {ABSORPTION: 0.5, SCR: 0.1, **noise}),
        sae(40, 40, {ABSORPTION: 0.25, SCR: 0.2}),
        pca({ABSORPTION: 0.125}),
    ]
    drawn = draw("evaluations_vs_l0_at_16k", rows)
    absorption, scr = drawn.axes
    assert titles(drawn) == ["1 - absorption", "SCR, 20 latents"]
    assert marked(absorption) == [[[40, 80], [0.75, 0.5]]]
    assert marked(scr) == [[[40, 80], [0.2, 0.1]]]
    # Only the SAE of L0 80 was judged with several seeds.
    bars = [bar.tolist() for bar in absorption.collections[0].get_segments() if len(bar)]
    assert bars[-1] == [[80, 0.4375], [80, 0.5625]]
    assert [y for _, y in unmarked(absorption, "--")] == [[0.875, 0.875]]
    assert unmarked(scr, "--") == []
    assert keys(drawn) == ["top_k", "PCA, all components"]
    assert drawn.get_suptitle() == "lm, layer 0\n2 SAEs of width 16k, trained on 1k tokens"
    assert keys(draw("evaluations_vs_l0_at_16k", rows[:2])) == ["top_k"]


def test_what_published_work_warns_of_stands_below_the_figures_that_show_it():
    warned = "evaluations.sae_bench_tpp.caution"
    rows = [sae(40, 41, {TPP: 0.2, CORE: 0.9, warned: "do not rank"}), sae(80, 82, {TPP: 0.3})]
    told = "sae_bench_tpp: do not rank"
    assert draw("evaluations_vs_l0_at_16k", rows).legends[0].get_title().get_text() == told
    assert draw("sae_bench_tpp_vs_l0", rows).legends[0].get_title().get_text() == told
    assert draw("evaluations_vs_width", rows).legends[0].get_title().get_text() == ""


def test_panels_without_figures_of_saes_are_left_out():
    """Three are left, in a grid of two columns. The lowest panel of each has the x label."""
    scores = {CORE: 0.9, SCR: 0.1, TPP: 0.2, PROBING: None}
    rows = [sae(40, 40, scores), sae(8, 8, {}, architecture="gated"), pca({PROBING: 0.8})]
    drawn = draw("evaluations_vs_l0_at_16k", rows)
    assert titles(drawn) == ["loss recovered", "SCR, 20 latents", "TPP, 20 latents"]
    assert [axes.get_xlabel() for axes in drawn.axes] == ["", "", style.L0_LABEL]
    assert [text.get_text() for text in drawn.axes[1].texts] == [style.L0_LABEL]
    assert keys(drawn) == ["top_k"]


def test_scaling_is_the_mean_over_saes_of_l0_40_to_200():
    l0_and_core = [(39.9, 1), (40, 0.2), (200, 0.4), (200.1, 1)]
    rows = [sae(place, l0, {CORE: core}) for place, (l0, core) in enumerate(l0_and_core)]
    rows.append(sae(7, 100, {CORE: 0.5}, width="65k"))
    drawn = draw("evaluations_vs_width", [*rows, pca({CORE: 0.9})])
    (axes,) = drawn.axes
    assert marked(axes) == [[[16384, 65536], [0.3, 0.5]]]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["16k", "65k"]
    assert axes.get_xlabel() == "latents (mean over SAEs of L0 40 to 200)"


def test_scaling_is_the_mean_over_all_saes_if_none_is_in_the_range():
    drawn = draw("evaluations_vs_width", [sae(2, 2, {CORE: 0.2}), sae(8, 8, {CORE: 0.6})])
    (axes,) = drawn.axes
    assert marked(axes) == [[[16384], [0.4]]]
    assert axes.get_xlabel() == "latents (mean over SAEs of all L0)"


def test_course_has_a_line_for_each_sae_and_their_mean():
    scores = {0: (0.1, 0.3), 1000: (0.4, 0.6), 100_000: (0.6, 1.0)}
    rows = [
        sae(k, k, {CORE: values[place]}, tokens=tokens)
        for tokens, values in scores.items()
        for place, k in enumerate((20, 40))
    ]
    for row in rows[:4]:
        row["name"] += f"/checkpoints/ae_{row['tokens'] // 10}"
    (axes,) = draw("evaluations_vs_tokens", rows).axes
    places = [100, 1000, 100_000]
    assert unmarked(axes) == [(places, [0.1, 0.4, 0.6]), (places, [0.3, 0.6, 1.0])]
    assert marked(axes) == [[places, [0.2, 0.5, 0.8]]]
    ticks = dict(zip(axes.get_xticks(), axes.get_xticklabels(), strict=True))
    assert {place: tick.get_text() for place, tick in ticks.items()} == {
        100: "0",
        1000: "1k",
        10_000: "10k",
        100_000: "100k",
    }
    assert [text.get_text() for text in axes.texts] == ["//"]
    (axes,) = draw("evaluations_vs_tokens", rows[2:]).axes
    assert not axes.texts


@pytest.mark.parametrize(
    ("tokens", "words"), [(999, "999"), (1000, "1k"), (512_000, "512k"), (1.5e6, "1.5M")]
)
def test_tokens_are_told_in_words(tokens, words):
    assert course.in_words(tokens) == words


def test_sizes_have_a_row_for_each_evaluation():
    scr, probing = ("sae_bench_scr.scr_metric_threshold_", "sae_bench_sparse_probing.sae_top_")
    scores = {f"{scr}{n}": n / 1000 for n in (5, 20, 500)}
    scores |= {f"{probing}{n}_test_accuracy": 0.8 for n in (2, 5)}
    drawn = draw("evaluations_by_size_at_16k", [sae(40, 41, scores)])
    specs = [axes.get_subplotspec() for axes in drawn.axes]
    places = [(spec.rowspan.start, spec.colspan.start) for spec in specs]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert titles(drawn)[1:4] == [
        "SCR, 20 latents",
        "SCR, 500 latents",
        "sparse probing, 2 latents",
    ]
    assert [marked(axes) for axes in drawn.axes[:2]] == [[[[41], [0.005]]], [[[41], [0.02]]]]


def test_a_difference_is_the_widest_minus_the_next():
    rows = [
        sae(20, 19, {CORE: 0.5, ABSORPTION: 0.5}, width="4k"),
        sae(20, 20, {CORE: 0.75, ABSORPTION: 0.25}),
        sae(40, 40, {CORE: 0.5, ABSORPTION: None}),
        sae(80, 80, {CORE: 0.5}),
        sae(40, 42, {CORE: 0.75, ABSORPTION: 0.5}, width="65k"),
        sae(20, 21, {CORE: 0.5, ABSORPTION: 0.5}, width="65k"),
        sae(20, 20, {CORE: 0.5}, width="65k", architecture="gated"),
    ]
    drawn = draw("evaluations_width_difference", rows)
    core, absorption = drawn.axes
    assert marked(core) == [[[21, 42], [-0.25, 0.25]]]
    # Of 1 - absorption.
    assert marked(absorption) == [[[21], [-0.25]]]
    assert [y for _, y in unmarked(core)] == [[0, 0]]
    assert (core.get_ylabel(), core.get_title()) == ("65k minus 16k", "loss recovered")
    assert absorption.get_xlabel() == "L0 of the 65k SAE"
    assert keys(drawn) == ["top_k"]


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in WITH_PANELS
        if figures.get(name).shows != "published" and not figures.get(name).beside
    ],
)
def test_a_figure_with_nothing_to_show_says_which_evaluations_it_needs(name):
    rows = [sae(40, 40, {CORE: None}, width=width) for width in ("16k", "65k")]
    with pytest.raises(SaemakeError, match=r"models\.<name>\.suite\.evaluations: ") as told:
        draw(name, rows)
    assert "\n" not in str(told.value)
    listed = str(told.value).partition("evaluations: ")[2].split(", ")
    evaluations = [panel.evaluation for panel in figures.get(name).panels]
    assert listed == list(dict.fromkeys(evaluations))


@pytest.mark.parametrize(
    "name",
    ["evaluations_vs_l0_at_16k", "evaluations_by_size_at_16k", "evaluations_width_difference"],
)
def test_a_figure_against_l0_needs_an_l0(name):
    with pytest.raises(SaemakeError, match="no SAE has an L0; add sae_bench_core or dictionary_le"):
        draw(name, [sae(40, None, {SCR: 0.1})])


def test_a_difference_needs_two_widths_with_an_sae_in_common():
    with pytest.raises(SaemakeError, match="needs two widths, and the suite has 16k only; add one"):
        draw("evaluations_width_difference", [sae(40, 40, {CORE: 0.9})])
    others = [sae(40, 40, {CORE: 0.9}), sae(80, 80, {CORE: 0.9}, width="65k")]
    with pytest.raises(SaemakeError, match="no SAE of 65k has the architecture and the sparsity"):
        draw("evaluations_width_difference", others)


def test_a_published_result_of_another_definition_is_left_out(tmp_path):
    figure = "sae_bench_rebuilt_and_published"
    paths = tables(tmp_path / "tables", figure, ["top_k"])
    for path in paths:
        content = json.loads(path.read_text())
        redefined = content["sae_bench"]["figures"]["sae_bench_absorption"]
        next(iter(redefined.values()))["not_comparable"] = "redefined"
        path.write_text(json.dumps(content))
    drawn = drawing.draw(figures.get(figure), drawing.table(figures.get(figure), paths), "title")
    lines = {axes.get_title(): len(axes.lines) for axes in drawn.axes}
    # Of each of two widths: rebuilt, published, and the file.
    assert lines.pop("1 - absorption") == 2 * 2
    assert set(lines.values()) == {2 * 3}


def test_comparisons_without_published_results_say_so():
    with pytest.raises(SaemakeError, match="no comparison has published results of SAE Bench"):
        draw("sae_bench_rebuilt_and_published", [sae(40, 40, {})])


KL = "sae_bench_core.kl_div_score"


def baseline(name, sparsity, l0, value):
    """A row of a baseline: PCA with as many components, or with all; or the identity."""
    row = {**pca({KL: value}), "architecture": name, "sparsity": sparsity, "l0": l0}
    return {**row, "name": f"lm/L0/baselines/{name}/{sparsity}", "model": "lm", "layer": 0}


def test_baselines_are_grey_lines_and_those_far_from_the_saes_are_left_out():
    rows = [
        *(sae(k, k, {KL: value}) for k, value in ((20, 0.8), (40, 0.9))),
        *(baseline("pca", f"k_{k}", k, value) for k, value in ((10, 0.1), (20, 0.75), (40, 0.85))),
        baseline("pca", None, 512, 0.99),
        baseline("identity", None, 512, 1.0),
    ]
    drawn = draw(f"{KL}_vs_l0", rows)
    (axes,) = drawn.axes
    assert axes.get_ylabel() == "KL score (SAE Bench core)"
    assert marked(axes) == [[[20, 40], [0.8, 0.9]]]
    (curve,) = [line for line in axes.lines if line.get_marker() == "."]
    # At 10 components the figure is further below the SAEs' than theirs spread.
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([20, 40], [0.75, 0.85])
    assert [y for _, y in unmarked(axes, "--")] == [[0.99, 0.99]]
    assert [y for _, y in unmarked(axes, ":")] == [[1.0, 1.0]]
    assert keys(drawn) == ["top_k", "PCA, L0 components", "PCA, all components", "identity"]
    assert {mark_of(line)[0] for line in axes.lines[:3]} == {style.GREY}


def test_a_frontier_by_width_has_a_panel_for_each_the_narrowest_first():
    rows = [sae(k, k, {KL: k / 100}, width=width) for width in ("16k", "4k") for k in (20, 40)]
    drawn = draw(f"{KL}_vs_l0_by_width", rows)
    assert titles(drawn) == ["4k", "16k"]
    assert [marked(axes) for axes in drawn.axes] == [[[[20, 40], [0.2, 0.4]]]] * 2
    together = draw(f"{KL}_vs_l0", rows)
    assert len(together.axes) == 1
    assert keys(together) == ["top_k", "width 4k", "width 16k"]


def test_missing_values_leave_their_points_out():
    rows = [sae(k, k, {KL: value}) for k, value in ((10, 0.5), (20, None), (40, 0.7))]
    rows.append(sae(80, None, {KL: 0.9}))
    (axes,) = draw(f"{KL}_vs_l0", rows).axes
    assert marked(axes) == [[[10, 40], [0.5, 0.7]]]


def test_dead_latents_are_one_minus_those_alive():
    column = "sae_bench_core.frac_alive"
    (axes,) = draw("dead_latents_vs_l0", [sae(8, 8, {column: 0.75})]).axes
    assert marked(axes) == [[[8], [0.25]]]
    assert axes.get_ylabel() == "share of dead latents"


@pytest.mark.parametrize(
    ("name", "kind", "y"),
    [
        ("sae_bench_core.mse_vs_l0", "frontier", "sae_bench_core.mse"),
        ("sae_bench_core.mse_vs_tokens", "training", "sae_bench_core.mse"),
        ("a.b_vs_l0_by_width", "frontier", "a.b"),
        ("a.b_vs_width", "scaling", "a.b"),
    ],
)
def test_any_column_has_figures(name, kind, y):
    figure = figures.get(name)
    assert (figure.kind, figure.y, figure.by_default and figure.by != "") == (kind, y, False)
    assert any(re.fullmatch(pattern, name) for pattern in figures.patterns())


@pytest.mark.parametrize("name", ["mse_vs_l0", "a.b_vs_c", "a.b_vs_tokens_by_width", "a/b.c_vs_l0"])
def test_other_names_are_no_figures(name):
    with pytest.raises(SaemakeError, match="no figure"):
        figures.get(name)
    assert not any(re.fullmatch(pattern, name) for pattern in figures.patterns())


def densities(folder, name, values, inference=None):
    path = folder / name / "sae_bench_core_latents.parquet"
    path.parent.mkdir(parents=True)
    latents = pd.DataFrame({"inference": inference, "feature_density": values})
    latents.to_parquet(path)
    return path


def test_a_histogram_has_the_share_of_latents_in_each_bin_and_of_those_that_never_fire(tmp_path):
    rows = [row("top_k", k, 1000, "1k", []) for k in (2, 4)]
    rows[0]["inference"] = "threshold"
    table = tmp_path / "metrics.json"
    table.write_text(json.dumps(rows))
    paths = [
        table,
        densities(tmp_path, rows[0]["name"], [0.0, 0.005, 0.005, 0.9], "threshold"),
        densities(tmp_path, rows[1]["name"], [0.5, 0.5, 0.5, 0.5]),
    ]
    figure = figures.get("latent_densities")
    drawn = drawing.draw(figure, drawing.table(figure, paths), "lm")
    axes, bar = drawn.axes
    assert axes.get_title() == "top_k 1k"
    steps = [patch.get_data() for patch in axes.patches]
    assert [sorted(step.values[step.values > 0]) for step in steps] == [[0.25, 0.5], [1.0]]
    bin_of_half = steps[0].edges[steps[0].values.argmax() :][:2]
    assert bin_of_half[0] <= 0.005 < bin_of_half[1]
    (never,) = axes.lines
    assert list(never.get_ydata()) == [0.25]
    assert bar.get_ylabel() == "L0"


def test_the_first_decade_has_no_label_where_that_would_touch_never(tmp_path):
    table = tmp_path / "metrics.json"
    only = row("top_k", 2, 1000, "1k", [])
    table.write_text(json.dumps([only]))
    figure = figures.get("latent_densities")
    paths = [table, densities(tmp_path, only["name"], [0.0, 0.0002, 0.9])]
    axes, _ = drawing.draw(figure, drawing.table(figure, paths), "lm").axes
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert labels == ["never", "", "", "$10^{-2}$", "", "1"]


def test_a_file_beside_that_is_not_there_is_told():
    figure = figures.get("training_curves")
    with pytest.raises(SaemakeError, match=r"no SAE has a file training\.csv"):
        drawing._beside(figure, pd.DataFrame([sae(8, 8, {})]), [])


def own(rows, **more):
    figure = figures.Figure(
        "own",
        "suite",
        "metrics.json",
        "",
        x=more.pop("x", "l0"),
        panels=tuple(figures.Panel(column, column) for column in more.pop("y", [KL])),
        **more,
    )
    rows = [{"model": "lm", "layer": 0, "site": "resid_post", **row} for row in rows]
    return drawing.draw(figure, pd.DataFrame(rows), "mine")


def test_an_own_figure_has_a_colour_for_each_hue_and_a_panel_for_each_value():
    rows = [
        {**sae(k, k, {KL: k / 100 + layer}, width=width), "layer": layer}
        for layer in (0, 1)
        for width in ("4k", "16k")
        for k in (20, 40)
    ]
    drawn = own(rows, hue="width", by="layer")
    assert titles(drawn) == ["layer 0", "layer 1"]
    assert keys(drawn) == ["width 4k", "width 16k"]
    assert marked(drawn.axes[1])[0] == [[20, 40], [1.2, 1.4]]
    colours = [mark_of(line)[0] for line in drawn.axes[0].lines]
    assert colours == list(palette.COLOURS[:2])
    # Layers in one panel: what differs besides the colour is in the legend, and in the dashes.
    drawn = own(rows, hue="architecture")
    assert keys(drawn) == [f"top_k {layer} {width}" for layer in (0, 1) for width in ("16k", "4k")]
    assert len({line.get_linestyle() for line in drawn.axes[0].lines}) > 1
    drawn = own([{**row, "architecture": name} for row in rows for name in ("top_k", "gated")])
    marks = palette.marks()
    assert {mark_of(line)[0] for line in drawn.axes[0].lines} == {
        marks["top_k"].colour,
        marks["gated"].colour,
    }


def layers(*values):
    """SAEs of a layer for each list of values."""
    return [
        {**sae(k, k, {KL: value}), "layer": layer}
        for layer, of_layer in enumerate(values)
        for k, value in zip((20, 40), of_layer, strict=True)
    ]


def test_panels_of_a_column_share_their_axes_unless_that_hides_the_values():
    first, second = own(layers((0.5, 0.6), (0.8, 0.9)), by="layer").axes
    assert first.get_ylim() == second.get_ylim()
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim()[0] < 0.5 < 0.9 < first.get_ylim()[1]
    first, second = own(layers((0.5, 0.6), (50, 60)), by="layer").axes
    assert first.get_ylim()[1] < 1 < second.get_ylim()[0]
    rows = [{**row, CORE: 100 * row[KL]} for row in layers((0.5, 0.6), (0.8, 0.9))]
    kl, core, *_ = own(rows, by="layer", y=[KL, CORE]).axes
    assert kl.get_ylim()[1] < 1 < core.get_ylim()[0]


def test_widths_side_by_side_share_their_y_axis():
    rows = [sae(k, k, {KL: k / 100}, width=width) for width, k in (("4k", 20), ("16k", 40))]
    first, second = draw(f"{KL}_vs_l0_by_width", rows).axes
    assert first.get_ylim() == second.get_ylim()


def test_long_labels_are_wrapped():
    rows = layers((0.5, 0.6), (0.8, 0.9))
    long = "average_max_decoder_cosine_similarity_of_x (sae_bench_core)"
    rows = [{**row, long: row[KL], CORE: row[KL]} for row in rows]
    (axes,) = own(rows, y=[long]).axes
    assert axes.get_ylabel() == "average_max_decoder_cosine_similarity_\nof_x (sae_bench_core)"
    drawn = own(rows, y=[long, CORE], by="layer", x=CORE)
    assert [axes.get_ylabel() for axes in drawn.axes[:2]] == [
        "average_max_decoder_cosine_\nsimilarity_of_x\n(sae_bench_core)",
        "sae_bench_core.ce_loss_\nscore",
    ]
    assert drawn.axes[2].get_xlabel() == "loss recovered (SAE Bench core)"


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("sae_bench_core.ce_loss_score", "loss recovered (SAE Bench core)"),
        ("dictionary_learning.frac_recovered", "loss recovered"),
        ("sae_bench_core.mse", "mse (sae_bench_core)"),
        (ABSORPTION, "absorption (less is better)"),
        (SCR, "SCR, 20 latents"),
        ("l0", style.L0_LABEL),
    ],
)
def test_a_column_has_one_label(column, label):
    assert figures.label_of(column) == label
    if "." in column:
        assert figures.get(f"{column}_vs_l0").label == label


def test_seeds_of_an_sae_are_one_point_with_a_bar():
    rows = [{**sae(20, 20, {KL: value}), "seed": seed} for seed, value in ((0, 0.5), (1, 0.75))]
    drawn = own(rows)
    (axes,) = drawn.axes
    assert marked(axes)[0] == [[20], [0.625]]
    (bar,) = axes.collections[0].get_segments()
    spread = np.std([0.5, 0.75], ddof=1)
    assert bar[:, 1] == pytest.approx([0.625 - spread, 0.625 + spread])


def test_an_own_figure_without_values_is_told():
    with pytest.raises(SaemakeError, match="no SAE of the figure has a value of latents_x, its x"):
        own([sae(20, 20, {KL: 0.5})], x="latents_x")
    with pytest.raises(SaemakeError, match="nothing to show"):
        own([sae(20, 20, {KL: None})])


@pytest.mark.parametrize("lines", [1, 8, 24])
def test_many_lines_missing_values_and_long_names_are_drawn_the_same_twice(lines, tmp_path):
    names = architectures.names()
    rows = [
        sae(k, l0, {KL: None if k == 3 else k / 10}, names[n % 8], ("4k", "16k", "65k")[n // 8])
        for n in range(lines)
        for k, l0 in enumerate((0.5, 10, 80, 640, 5000))
    ]
    pictures = [style.render(draw(f"{KL}_vs_l0", rows), "svg") for _ in range(2)]
    assert pictures[0] == pictures[1]


def test_a_frontier_takes_the_l0_of_its_own_evaluation():
    rows = [sae(8, 9.0, {KL: 0.5, "sae_bench_core.l0": 8.0}), sae(16, 17.0, {KL: 0.6})]
    (axes,) = draw(f"{KL}_vs_l0", rows).axes
    assert marked(axes) == [[[8, 17], [0.5, 0.6]]]


def test_an_own_figure_of_layers_has_a_line_for_each_sparsity():
    rows = [
        {**sae(k, k, {KL: k / 100 + layer / 10}), "layer": layer}
        for layer in (0, 1, 2)
        for k in (20, 40)
    ]
    drawn = own(rows, x="layer")
    (axes,) = drawn.axes
    assert marked(axes) == [[[0, 1, 2], [0.2, 0.3, 0.4]], [[0, 1, 2], [0.4, 0.5, 0.6]]]
    assert keys(drawn) == ["top_k k_20", "top_k k_40"]
    widths = [sae(8, 8, {KL: 0.5}, width=width) for width in ("4k", "16k")]
    (axes,) = own(widths, x="latents").axes
    assert marked(axes) == [[[4096, 16384], [0.5, 0.5]]]


def test_dashes_mean_the_same_in_every_panel_of_an_own_figure():
    rows = [
        {**sae(k, k, {KL: 0.5}, width=width), "layer": layer}
        for layer, widths in ((0, ("4k", "16k")), (1, ("16k", "65k")))
        for width in widths
        for k in (20, 40)
    ]
    drawn = own(rows, by="layer")
    assert keys(drawn) == ["top_k 16k", "top_k 65k", "top_k 4k"]
    legend = dict(zip(keys(drawn), drawn.legends[0].get_lines(), strict=True))
    first, second = ([line.get_linestyle() for line in axes.lines] for axes in drawn.axes)
    assert first == [legend["top_k 16k"].get_linestyle(), legend["top_k 4k"].get_linestyle()]
    assert second == [legend["top_k 16k"].get_linestyle(), legend["top_k 65k"].get_linestyle()]


def test_a_seed_of_its_own_stands_beside_the_configs():
    """Whose rows have no seed."""
    first = sae(20, 20, {KL: 0.5})
    other = {**sae(20, 22, {KL: 0.75}), "seed": 3, "name": f"{first['name']}/seed_3"}
    drawn = own([first, other])
    assert marked(drawn.axes[0])[0] == [[21], [0.625]]
    assert "1 SAE of width 16k, of 2 seeds each" in drawn.get_suptitle()


def test_a_title_is_not_read_as_mathematics():
    assert (
        "cost $x_$ of $"
        in drawing.draw(
            figures.get(f"{KL}_vs_l0"), pd.DataFrame([sae(8, 8, {KL: 0.5})]), "cost $x_$ of $"
        ).get_suptitle()
    )
    style.render(
        drawing.draw(figures.get(f"{KL}_vs_l0"), pd.DataFrame([sae(8, 8, {KL: 0.5})]), "$x_$"),
        "svg",
    )


def test_cosines_a_little_over_1_are_counted(tmp_path):
    table = tmp_path / "metrics.json"
    only = row("top_k", 2, 1000, "1k", [])
    table.write_text(
        json.dumps([{**only, "dictionary_learning": {"l0": 0.0}, "sae_bench_core": {}}])
    )
    path = tmp_path / only["name"] / "sae_bench_core_latents.parquet"
    path.parent.mkdir(parents=True)
    values = {"inference": None, "max_decoder_cosine_sim": [0.5, 1.0, 1.0000004, 1.0000001]}
    pd.DataFrame(values).to_parquet(path)
    figure = figures.get("decoder_similarities")
    drawn = drawing.draw(figure, drawing.table(figure, [table, path]), "lm")
    (step,) = [patch.get_data() for patch in drawn.axes[0].patches]
    assert step.values[-1] == 0.75
    assert step.values.sum() == 1
    assert drawn.axes[0].patches[0].get_edgecolor()[3] == 1  # of an L0 of 0, too


def test_training_curves_have_a_row_for_each_architecture_and_a_line_for_each_sae(tmp_path):
    figure = figures.get("training_curves")
    paths = tables(tmp_path, "training_curves", ["top_k", "gated"])
    drawn = drawing.draw(figure, drawing.table(figure, paths), "lm")
    *panels, bar = drawn.axes
    assert bar.get_ylabel() == "L0"
    assert titles(drawn)[:4] == [*("loss", "variance explained", "L0", "share of dead latents")]
    assert list(panels[3].lines[0].get_ydata()) == [0.5 / 1024, 0.25 / 1024]
    assert len(panels) == 4 * 2 * len(LATENTS)
    assert panels[0].get_ylabel() == "gated\n1k"
    assert [len(axes.lines) for axes in panels] == [2] * len(panels)
    assert list(panels[0].lines[0].get_xdata()) == [0, 1000]
    assert list(panels[0].lines[0].get_ydata()) == [0.5, 0.25]


def test_what_is_warned_of_in_a_table_of_its_own_stands_below_the_figure(tmp_path):
    both = []
    for evaluation, more in (("sae_bench_core", {"l0": 8.0}), ("sae_bench_tpp", {})):
        one = row("top_k", 2, 1000, "1k", [])
        judged = {evaluation: {**more, TPP.partition(".")[2]: 0.5}}
        only = {key: one[key] for key in ("name", "architecture", "width", "latents", "sparsity")}
        caution = {"caution": "do not rank"} if evaluation == "sae_bench_tpp" else {}
        both.append({**only, **judged, "tokens": 1000, "evaluations": {evaluation: caution}})
        path = tmp_path / f"{evaluation}.json"
        path.write_text(json.dumps([both[-1]]))
    figure = figures.get("sae_bench_tpp_vs_l0")
    found = drawing.table(figure, sorted(tmp_path.glob("*.json")))
    assert drawing._cautions(figure, found) == ["sae_bench_tpp: do not rank"]


def of_seeds(k, values, **more):
    """Rows of an SAE at several seeds: `values` has L0 and KL of each."""
    rows = []
    for seed, (l0, kl) in enumerate(values):
        own_row = {**sae(k, l0, {KL: kl, **more}), "seed": seed or None}
        rows.append({**own_row, "name": own_row["name"] + (f"/seed_{seed}" if seed else "")})
    return rows


def segments(axes):
    """The bars of a panel: where each begins and ends."""
    return [bar.tolist() for bars in axes.collections for bar in bars.get_segments()]


@pytest.mark.parametrize("name", [f"{KL}_vs_l0", f"{KL}_vs_l0_by_width", "overview"])
def test_a_frontier_of_seeds_has_means_with_bars_of_a_standard_deviation(name):
    rows = [*of_seeds(8, [(8, 0.25), (8, 0.5), (8, 0.75)]), *of_seeds(16, [(15, 0.8), (17, 1.0)])]
    drawn = draw(name, rows)
    (axes,) = drawn.axes
    assert marked(axes) == [[[8, 16], [0.5, 0.9]]]
    root = 2**0.5
    assert segments(axes) == [
        [pytest.approx([8, 0.5]), pytest.approx([8, 0.5])],  # its L0 does not spread
        [pytest.approx([16 - root, 0.9]), pytest.approx([16 + root, 0.9])],
        [pytest.approx([8, 0.25]), pytest.approx([8, 0.75])],
        [pytest.approx([16, 0.9 - root / 10]), pytest.approx([16, 0.9 + root / 10])],
    ]
    assert "2 SAEs of width 16k, of 2 to 3 seeds each" in drawn.get_suptitle()
    assert drawn.legends[0].get_title().get_text().replace("\n", " ") == (
        "Points are means over 2 to 3 seeds. Bars are a standard deviation to each side."
    )


def test_a_seed_that_lacks_a_figure_leaves_the_mean_of_the_others():
    rows = of_seeds(8, [(8, 0.25), (8, None), (8, 0.75)])
    (axes,) = draw(f"{KL}_vs_l0", rows).axes
    assert marked(axes) == [[[8], [0.5]]]


def test_rows_that_name_no_seed_are_left_as_they_are():
    rows = pd.DataFrame([{**sae(8, 8, {KL: 0.5}), "seed": None}, sae(16, 16, {KL: 0.6})])
    assert seeds.means(rows) is rows
    assert seeds.means(rows.drop(columns="seed")).equals(rows.drop(columns="seed"))


def test_checkpoints_of_seeds_are_means_step_by_step():
    rows = [
        {**each, "name": f"{each['name']}/checkpoints/ae_{step}", "tokens": step}
        for step in (0, 100)
        for each in of_seeds(8, [(8, 0.25 + step), (8, 0.75 + step)])
    ]
    found = seeds.means(pd.DataFrame(rows))
    assert list(found[KL]) == [0.5, 100.5]
    assert list(found["tokens"]) == [0, 100]
    assert list(found["seeds.count"]) == [2, 2]


def test_stability_is_a_mean_over_pairs_with_a_bar_to_the_smallest_and_the_largest():
    rows = [
        {**sae(k, k, {}), "seeds": [0, 1], "shared": share, "decoder_mean_cosine": 0.5}
        for k, shares in ((8, (0.25, 0.5, 0.75)), (16, (0.1, 0.2, 0.6)))
        for share in shares
    ]
    drawn = draw("stability_vs_l0", rows)
    assert titles(drawn) == [panel.label for panel in figures.STABILITY[::5]]
    axes = drawn.axes[0]
    assert marked(axes) == [[[8, 16], [0.5, pytest.approx(0.3)]]]
    assert segments(axes) == [
        [[8, 0.25], [8, 0.75]],
        [[16, pytest.approx(0.1)], [16, pytest.approx(0.6)]],
    ]
    assert "Points are means over 3 pairs of seeds" in drawn.legends[0].get_title().get_text()
