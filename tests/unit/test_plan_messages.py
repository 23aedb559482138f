"""What a job's message says of the store: what is linked, what is trained, what is gone on with."""

import json
import pickle

import pytest
from conftest import CONFIG_FILE, PROJECT, SMALL, raw_config

from saemake.base.store import Store
from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import Sweep
from saemake.paths.sweeps import members
from saemake.plan import messages as plan
from saemake.recipes.judging import evaluation_key, sae_evaluation_recipe
from saemake.recipes.training import sae_recipe

SWEEP = Sweep("demo", Hookpoint(3), "top_k", "256")


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return read(raw_config(SMALL), PROJECT, [CONFIG_FILE])


def put(config, sae):
    Store(plan.STORE, "saes").put(sae_recipe(config, sae).hash, {"ae.pt": str(sae).encode()})


def test_a_pass_says_what_it_trains_and_what_it_links(config):
    said = plan.of_training(config, SWEEP)
    few, many = members(config, SWEEP)
    assert str(said) == (
        "train 2 SAEs demo/L3/top_k/256 (k_4, k_16): 20,480 tokens in 40 steps of 512"
    )
    put(config, many)
    assert str(said) == (
        "train 1 SAE demo/L3/top_k/256 (k_4), link 1 (k_16) from the store:"
        " 20,480 tokens in 40 steps of 512"
    )
    put(config, few)
    assert str(said) == "link 2 SAEs demo/L3/top_k/256 (k_4, k_16) from the store"


def test_a_pass_says_where_it_goes_on(config):
    few, many = (sae_recipe(config, sae).hash for sae in members(config, SWEEP))
    snapshots = Store(plan.STORE, "snapshots")
    for step, of in ((12, [few, many]), (16, [many]), (30, ["another"])):
        contents = {"step": step, "members": of, "made_with": "this"}
        snapshots.put(f"snapshot{step}", {"contents.json": json.dumps(contents).encode()})
    assert str(plan.of_training(config, SWEEP)).endswith(
        "in 40 steps of 512; there is a snapshot to go on from at step 16"
    )


def test_an_evaluation_says_what_it_takes_from_the_store(config):
    said = plan.of_evaluation(config, "dictionary_learning", SWEEP)
    assert str(said) == "evaluate demo/L3/top_k/256 by dictionary_learning on 10 documents"
    for number, sae in enumerate(members(config, SWEEP), start=1):
        put(config, sae)
        judged = Store(plan.STORE, "saes").sum_of(sae_recipe(config, sae).hash, "ae.pt")
        key = evaluation_key(sae_evaluation_recipe(config, sae, "dictionary_learning").hash, judged)
        Store(plan.STORE, "evaluations").put(key, {"figures.json": b"[]"})
        if number == 1:
            assert str(said).endswith("on 10 documents, 1 of 2 from the store")
    assert str(said) == "link dictionary_learning of demo/L3/top_k/256 from the store (2 of 2)"


@pytest.mark.parametrize("sums", [None, b'{"ae.pt": ', b"[]", b"{}", b"\xff"])
def test_a_damaged_entry_of_the_store_ends_no_run(config, sums):
    """Snakemake ends all of a run where a job's message cannot be made."""
    for sae in members(config, SWEEP):
        put(config, sae)
        damaged = Store(plan.STORE, "saes").folder / sae_recipe(config, sae).hash / "sums.json"
        damaged.unlink()
        if sums is not None:
            damaged.write_bytes(sums)
    said = str(plan.of_evaluation(config, "dictionary_learning", SWEEP))
    assert said == "evaluate demo/L3/top_k/256 by dictionary_learning on 10 documents"


def test_words_are_found_when_they_are_shown_and_left_out_of_a_script():
    asked = []
    said = plan.Said(lambda: asked.append(1) or "words")
    assert not asked
    assert pickle.loads(pickle.dumps(said)) == ""
    assert f"{said}" == "words"
