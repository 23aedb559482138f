"""What `store` says of entries whose recipes it cannot read."""

import argparse
import json
from pathlib import Path

import pytest
from conftest import CONFIG_FILE, PROJECT, SMALL, merged, raw_config

from saemake.base.store import Store
from saemake.commands import store as store_command
from saemake.commands.unnamed import UNKNOWN, Described
from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import STORE, Sweep
from saemake.paths.sweeps import members
from saemake.recipes.training import sae_recipe

FILES = {
    "saes": "provenance.json",
    "evaluations": "recipe.json",
    "baselines": "recipe.json",
    "tokens": "manifest.json",
    "snapshots": "contents.json",
    "setups": "recipe.json",
}


@pytest.mark.parametrize("content", [b"[]", b"7", b"{}", b'{"recipe": {"layer": 3}}', b"\xff"])
def test_an_entry_with_a_strange_recipe_is_told_and_hides_no_other(tmp_path, content):
    config = read(raw_config(SMALL), PROJECT, [CONFIG_FILE])
    sae = members(config, Sweep("demo", Hookpoint(3), "top_k", "256"))[0]
    known = {"recipe": sae_recipe(config, sae).model_dump(mode="json")}
    Store(tmp_path, "saes").put("known", {"provenance.json": json.dumps(known).encode()})
    for kind, file in FILES.items():
        Store(tmp_path, kind).put("strange", {file: content})
    described = Described(config, tmp_path, [sae])
    for kind in FILES:
        assert len(described.lines(kind, ["strange"])) == 1
    assert described.lines("saes", ["known", "strange"]) == [
        "saes: demo/L3/top_k/256/k_4 ()",
        f"saes: {UNKNOWN}",
    ]


def test_an_entry_of_a_model_of_another_config_has_the_name_of_its_links(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    both = merged({"models": {"mine": raw_config(SMALL)["models"]["demo"]}}, SMALL)
    both["models"]["mine"]["train_tokens"] = 30_000
    before = read(raw_config(both), PROJECT, [CONFIG_FILE])
    sae = members(before, Sweep("mine", Hookpoint(3), "top_k", "256"))[0]
    recipe = sae_recipe(before, sae)
    made_from = json.dumps({"recipe": recipe.model_dump(mode="json")}).encode()
    store = Store(STORE, "saes")
    store.put(recipe.hash, {"ae.pt": b"weights", "provenance.json": made_from})
    judged = {"evaluation": "sae_bench_core", "subject": recipe.hash}
    Store(STORE, "evaluations").put("judged", {"recipe.json": json.dumps(judged).encode()})
    options = argparse.Namespace(prune=False, push=False, yes=False)

    def said(config):
        store_command.run(config, options)
        return capsys.readouterr().out

    config = read(raw_config(SMALL), PROJECT, [CONFIG_FILE])
    assert "saes: demo/L3/top_k/256/k_4 (" in said(config)
    store.link(recipe.hash, {"ae.pt": Path("results/mine/L3/top_k/256/k_4/ae.pt")})
    listed = said(config)
    assert "  saes: mine/L3/top_k/256/k_4 (the model is not of this config)\n" in listed
    assert "  evaluations: sae_bench_core of mine/L3/top_k/256/k_4\n" in listed
    assert listed.endswith(
        "files under results/mine/ are links to some of these; to keep their entries, give the"
        " config of each model with --configfile\n"
    )
    assert "not named by this config" not in said(before)


def test_an_sae_is_told_beside_the_nearest_of_all_models_of_its_lm(tmp_path):
    """Two entries of one LM: the first differs in its text's amount too."""
    both = merged({"models": {"mine": raw_config(SMALL)["models"]["demo"]}}, SMALL)
    both["models"]["mine"]["train_tokens"] = 30_000
    sweep = Sweep("mine", Hookpoint(3), "top_k", "256")
    before = read(raw_config(both), PROJECT, [CONFIG_FILE])
    known = {"recipe": sae_recipe(before, members(before, sweep)[0]).model_dump(mode="json")}
    Store(tmp_path, "saes").put("known", {"provenance.json": json.dumps(known).encode()})
    both["models"]["mine"]["training"] = both["models"]["mine"].get("training", {}) | {"seed": 1}
    config = read(raw_config(both), PROJECT, [CONFIG_FILE])
    demo = Sweep("demo", Hookpoint(3), "top_k", "256")
    named = [*members(config, demo), *members(config, sweep)]
    assert Described(config, tmp_path, named).lines("saes", ["known"]) == [
        "saes: mine/L3/top_k/256/k_4/seed_0 (training.seed: 0 -> 1)"
    ]
