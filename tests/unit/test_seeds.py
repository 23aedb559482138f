"""Seeds of a suite: which SAEs there are, where they are, and what is made of them."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import CONFIG_FILE, PROJECT, raw_config

from saemake.architectures.top_k.trainer import TopKDictionary
from saemake.base.errors import SaemakeError
from saemake.config import rebuilding
from saemake.config.checks import read
from saemake.evaluation.sae_bench_core import SaeBenchCoreFigures
from saemake.jobs import before, passes
from saemake.jobs.stability import write_stability
from saemake.llm.hookpoint import Hookpoint
from saemake.metrics import rows
from saemake.paths import files, shown
from saemake.paths.artifacts import StabilityTable
from saemake.paths.grammar import parse, saes_of
from saemake.paths.names import Sweep
from saemake.paths.sweeps import of_other_seeds, seeds_of, with_seeds
from saemake.plan.work import behind
from saemake.recipes.stability import stability_recipe
from saemake.recipes.training import sae_recipe
from saemake.report import tables

L3 = Hookpoint(3)
SWEEP = Sweep("demo", L3, "top_k", "1k")
TWO = {"architectures": {"top_k": {"sweep": [4, 8]}}}
FOLDER = "results/demo/L3/top_k/1k"


def config(seeds=(0, 2), **suite):
    said = {"architectures": ["top_k"], "pages": True, **suite}
    if seeds is not None:
        said["seeds"] = list(seeds)
    return read(raw_config({"models": {"demo": {**TWO, "suite": said}}}), PROJECT, [CONFIG_FILE])


@pytest.mark.parametrize(
    ("seeds", "fault"),
    [
        ([0, 1, 1], "models.demo.suite.seeds': lists seed 1 more than once; leave one out"),
        ([0, -1], "models.demo.suite.seeds.1': input should be greater than or equal to 0"),
        ([0, 2**63], "models.demo.suite.seeds.1': input should be less than"),
        ([], "models.demo.suite.seeds': list should have at least 1 item"),
        ([1, 2], "models.demo.suite.seeds': lacks 0, the seed of the SAEs whose paths name none"),
    ],
)
def test_bad_seeds_are_refused_in_one_line(seeds, fault):
    with pytest.raises(SaemakeError) as error:
        config(seeds)
    assert fault.lower() in str(error.value).lower()
    assert "\n" not in str(error.value)


def test_the_seed_of_the_training_has_the_paths_without_a_seed():
    checked = config((2, 0, 1))
    assert seeds_of(checked, SWEEP) == [0, 2, 1]
    assert [sae.own_part for sae in with_seeds(checked, SWEEP)] == [
        *("k_4", "k_8"),
        *("k_4/seed_2", "k_8/seed_2"),
        *("k_4/seed_1", "k_8/seed_1"),
    ]
    assert [sae_recipe(checked, sae).training.seed for sae in with_seeds(checked, SWEEP)] == [
        *(0, 0, 2, 2, 1, 1),
    ]
    over = {**TWO, "training": {"seed": 7}, "suite": {"architectures": ["top_k"], "seeds": [3, 7]}}
    other = read(raw_config({"models": {"demo": over}}), PROJECT, [CONFIG_FILE])
    assert [sae.own_part for sae in of_other_seeds(other, SWEEP)] == ["k_4/seed_3", "k_8/seed_3"]


@pytest.mark.parametrize("seeds", [None, [0]])
def test_one_seed_changes_nothing(seeds):
    without, one = config(None), config(seeds)
    assert with_seeds(one, SWEEP) == with_seeds(without, SWEEP)
    assert files.build_files(one) == files.build_files(without)
    assert files.suite_files(one, "demo") == files.suite_files(without, "demo")
    assert not any("stability" in path for path in files.build_files(one))


def test_only_sweeps_of_the_suite_have_other_seeds():
    checked = config()
    assert of_other_seeds(checked, Sweep("demo", Hookpoint(1, "attn_out"), "top_k", "1k"))
    assert of_other_seeds(checked, Sweep("demo", L3, "batch_top_k", "1k")) == []
    assert of_other_seeds(checked, Sweep("demo", L3, "top_k", "2k")) == []


def test_the_suite_has_the_saes_of_all_seeds():
    checked = config()
    built, sent = files.build_files(checked), files.suite_files(checked, "demo")
    figures = "results/demo/L3/figures"
    assert f"{figures}/stability_vs_l0.pdf" in built
    assert {f"{FOLDER}/k_8/seed_2/ae.pt", f"{FOLDER}/k_8/seed_2/metrics.json"} <= set(sent)
    assert f"{FOLDER}/stability.json" in sent
    # A page is a run of the LM: those of other seeds are made by their names.
    assert f"{FOLDER}/k_8/features.html" in built
    assert f"{FOLDER}/k_8/seed_2/features.html" not in built
    read_by_report = files.report_tables(checked, "demo", L3)
    assert {f"{FOLDER}/k_8/seed_2/provenance.json", f"{FOLDER}/stability.json"} <= set(
        read_by_report
    )
    judged = {str(job.subjects) for job in behind(checked, built) if hasattr(job, "evaluation")}
    assert judged == {
        *("demo/L3/top_k/1k", "baselines of demo/L3"),
        *("demo/L3/top_k/1k/k_4/seed_2", "demo/L3/top_k/1k/k_8/seed_2"),
    }
    assert rebuilding.config_yaml(checked, "demo").count("seeds:") == 1


def test_figures_read_the_tables_with_all_seeds():
    checked = config()
    frontier = shown.of_hookpoint(checked, "loss_recovered_vs_l0", "demo", L3)
    assert frontier.files(checked) == [f"{FOLDER}/metrics.json"]
    assert {sae.own_part for sae in frontier.seeded} == {"k_4/seed_2", "k_8/seed_2"}
    assert set(frontier.seeded) <= set(frontier.subjects)
    stability = shown.of_hookpoint(checked, "stability_vs_l0", "demo", L3)
    assert stability.files(checked) == [f"{FOLDER}/stability.json"]
    apart = shown.of_hookpoint(checked, "sae_bench_tpp_vs_l0", "demo", L3)
    assert f"{FOLDER}/k_8/seed_2/sae_bench_tpp.json" in apart.files(checked)
    curves = shown.of_hookpoint(checked, "training_curves", "demo", L3)
    assert not any("seed_" in path for path in curves.files(checked))


def test_stability_is_a_target_of_suites_with_several_seeds(tmp_path):
    checked = config()
    artifact = parse(checked, f"{FOLDER}/stability.json")
    assert artifact == StabilityTable(SWEEP)
    assert saes_of(checked, str(artifact)) == with_seeds(checked, SWEEP)
    assert passes.built_for(checked, str(artifact)) == [str(artifact)]
    with pytest.raises(SaemakeError, match=r"has no such|stability compares seeds"):
        parse(config(None), "results/demo/L3/figures/stability_vs_l0.pdf")


@pytest.mark.parametrize(
    ("seeds", "path", "fault"),
    [
        (
            None,
            f"{FOLDER}/stability.json",
            "stability compares seeds, and the suite of demo has one",
        ),
        ([0], f"{FOLDER}/stability.json", "list several in models.demo.suite.seeds"),
        (None, "results/demo/L3/figures/stability_vs_l0.svg", "stability compares seeds"),
        (
            [0, 1],
            "results/demo/L3/gated/1k/stability.json",
            "gated has one seed, since it is not of the suite of demo; add it to"
            " models.demo.suite.architectures",
        ),
        ([0, 1], "results/demo/L3/top_k/2k/stability.json", "add it to models.demo.suite.widths"),
    ],
)
def test_stability_of_one_seed_is_refused_in_one_line(seeds, path, fault):
    with pytest.raises(SaemakeError) as error:
        parse(config(seeds), path)
    assert str(error.value).startswith(f"{path}: ")
    assert fault in str(error.value)
    assert "\n" not in str(error.value)


def test_the_recipe_of_stability_follows_its_saes():
    two, three = config((0, 2)), config((0, 2, 3))
    assert stability_recipe(two, SWEEP).hash == stability_recipe(config((2, 0)), SWEEP).hash
    assert stability_recipe(two, SWEEP).hash != stability_recipe(three, SWEEP).hash
    assert len(stability_recipe(three, SWEEP).saes) == 6


def test_seeds_that_share_no_run_of_the_lm_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = [line for line in before.check(config(), []) if "seeds" in line]
    assert alone == [
        "2 SAEs of other seeds train on a run of the LM each (demo/L3/top_k/1k/k_4/seed_2, ...);"
        " with passes.share [sparsities, seeds] they share one"
    ]
    over = {"models": {"demo": {**TWO, "suite": {"architectures": ["top_k"], "seeds": [0, 2]}}}}
    over["passes"] = {"share": ["sparsities", "seeds"]}
    shared = read(raw_config(over), PROJECT, [CONFIG_FILE])
    assert not any("seeds" in line for line in before.check(shared, []))
    (one_pass,) = passes.of_run(shared, ["all"]).passes
    assert [sae.own_part for sae in one_pass.saes] == ["k_4", "k_8", "k_4/seed_2", "k_8/seed_2"]


TINY = Sweep("demo", L3, "top_k", "tiny")


def row(sae, seed=None, **judged):
    return {
        "name": str(sae),
        "model": "demo",
        "layer": 3,
        "architecture": "top_k",
        "width": "tiny",
        "latents": 6,
        "sparsity": "k_2",
        **({} if seed is None else {"seed": seed}),
        "steps": 10,
        "tokens": 1000,
        "inference": "top_k",
        "warnings": [],
        "evaluations": {},
        **judged,
    }


def core(l0):
    """An evaluation with an L0 and nothing else."""
    fields = SaeBenchCoreFigures.model_fields.items()
    nothing = {name: 0 if field.annotation is int else None for name, field in fields}
    return {**nothing, "l0": l0}


def save(sae, decoder_FD, encoder_FD, density):
    """The files of an SAE that the comparison reads."""
    folder = Path(sae.folder)
    folder.mkdir(parents=True)
    dictionary = TopKDictionary(8, 6, 2)
    with torch.no_grad():
        dictionary.decoder.weight.copy_(decoder_FD.T)
        dictionary.encoder.weight.copy_(encoder_FD)
        dictionary.encoder.bias.zero_()
        dictionary.b_dec.zero_()
    torch.save(dictionary.state_dict(), folder / "ae.pt")
    trainer = {"dict_class": "AutoEncoderTopK", "trainer_class": "TopKTrainer", "k": 2}
    trainer |= {"dict_size": 6, "activation_dim": 8}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
    seen = pd.DataFrame({"inference": "top_k", "index": range(6), "feature_density": density})
    seen.to_parquet(folder / "sae_bench_core_latents.parquet")


def test_what_two_seeds_share_by_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suite = {"architectures": ["top_k"], "widths": ["tiny"], "seeds": [0, 2]}
    over = {"architectures": {"top_k": {"sweep": [2]}}, "suite": suite}
    checked = read(
        raw_config({"widths": {"tiny": 6}, "models": {"demo": over}}), PROJECT, [CONFIG_FILE]
    )
    first, second = with_seeds(checked, TINY)
    e = torch.eye(8)
    save(first, e[:6], e[:6], [0.5, 0.25, 0, 0, 0, 0])
    # Four decoder directions have changed places; the encoder direction of one of them is turned.
    turned = torch.tensor([1, -1, 1, 1, 1, 1])[:, None]
    save(second, e[[3, 1, 2, 0, 6, 7]], e[[3, 1, 2, 0, 6, 7]] * turned, [0] * 6)
    table = [
        row(first, sae_bench_core=core(2.0)),
        row(first, sae_bench_core=core(5.0)) | {"inference": "threshold"},
        row(second, 2, sae_bench_core=core(3.0)),
    ]
    (tmp_path / "metrics.json").write_text(json.dumps(table))
    write_stability(checked, TINY, "metrics.json", 1, "stability.json")
    (pair,) = json.loads((tmp_path / "stability.json").read_text())
    assert pair.pop("same_partner") >= 3 / 6  # directions at right angles have no nearest
    assert pair.pop("encoder_mean_cosine") == pytest.approx(3 / 6)
    assert pair.pop("decoder_mean_cosine") == pytest.approx(4 / 6)
    assert pair == {
        **{key: table[0][key] for key in ("name", "model", "layer", "architecture", "width")},
        **{key: table[0][key] for key in ("latents", "sparsity", "steps", "tokens")},
        "seeds": [0, 2],
        "l0": 2.5,
        "method": "optimal",
        "shared": 3 / 6,
        "shared_by_decoder": 4 / 6,
        "shared_by_encoder": 3 / 6,
        "live_latents": 2,
        "live_shared": 1 / 2,
    }


def test_the_report_has_means_and_spreads_with_the_number_of_seeds():
    def judged(name, seed, score):
        figures = {"sae_bench_scr": {"scr_metric_threshold_20": score}}
        return row(f"demo/L3/top_k/tiny/{name}", seed, **figures) | {"inference": None}

    table = [
        judged("k_2", None, 0.25),
        judged("k_4", None, 0.5),
        judged("k_2/seed_1", 1, 0.5),
        judged("k_2/seed_2", 2, 0.75),
        judged("k_8", None, 0.1),
        judged("k_8/seed_1", 1, None),
        judged("k_8/seed_2", 2, 0.3),
    ]
    found = tables.of_seeds(rows.read(json.dumps(table).encode()))
    assert found.heads == ["SAE", "chosen by", "seeds", "SCR, 20"]
    assert [[cell.text for cell in cells] for cells in found.rows] == [
        ["top_k/tiny/k_2", "", "3", "0.5 ± 0.25"],
        ["top_k/tiny/k_8", "", "3", "0.2 ± 0.14 (of 2)"],
    ]
    assert found.rows[0][3].number == 0.5
