"""Whole passes that leave positions out, on the demo's LM and text."""

import json

import pytest
from conftest import CONFIG_FILE, PROJECT, SMALL, merged, raw_config
from texts import tokenised
from unit.test_snapshots import Killed, go, kill_before, stored, wanted

from saemake.activations import norms
from saemake.base.errors import SaemakeError
from saemake.config.checks import read
from saemake.training.members import Stores
from saemake.training.train import Inputs

# Of the demo's norms none is ten times the median; over this are some.
MULTIPLE = 1.4


def config_of(drop):
    over = {"models": {"demo": {"prepend_bos": True}}, "training": {"drop": drop}}
    return read(raw_config(merged(over, SMALL)), PROJECT, [CONFIG_FILE])


@pytest.fixture(scope="module")
def inputs(demo_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")

    def made(config):
        text = tokenised(config, demo_weights, "train", folder)
        return Inputs(demo_weights, {}, text)

    return made


def read_json(saes, root, file):
    return json.loads(Stores.under(root).saes.read(saes[0].recipe.hash, file))


def test_a_killed_pass_ends_with_the_same_bytes(inputs, tmp_path, monkeypatch):
    drop = {"bos": True, "norm_over_median": MULTIPLE, "reserve": 0.3}
    config = config_of(drop)
    saes, given = wanted(config), inputs(config)
    go(saes, given, tmp_path / "straight", config, seconds=1e9)
    with monkeypatch.context() as patch:
        kill_before(patch, 17)
        with pytest.raises(Killed):
            go(saes, given, tmp_path / "killed", config)
    go(saes, given, tmp_path / "killed", config)
    assert stored(saes, tmp_path / "killed") == stored(saes, tmp_path / "straight")
    straight, killed = (
        read_json(saes, tmp_path / name, "provenance.json") for name in ("straight", "killed")
    )
    assert killed["resumes"] == 1
    for key in ("dropped_ids", "dropped_by_norm", "squared_norm_of_largest_1_percent"):
        assert killed[key] == straight[key]
    assert straight["dropped_ids"] == [0]
    assert 0.001 < straight["dropped_by_norm"] < 0.3
    # The config.json says it, and so do the recipe and its hash.
    buffer = read_json(saes, tmp_path / "straight", "config.json")["buffer"]
    assert buffer["drop"] == {**drop, "special": False}
    assert straight["recipe"]["training"]["drop"] == buffer["drop"]


def test_without_a_drop_nothing_speaks_of_one(inputs, tmp_path):
    config = config_of({})
    saes = wanted(config)
    go(saes, inputs(config), tmp_path, config, seconds=1e9)
    assert "drop" not in read_json(saes, tmp_path, "config.json")["buffer"]
    provenance = read_json(saes, tmp_path, "provenance.json")
    assert not {"dropped_ids", "dropped_by_norm"} & set(provenance)
    assert "drop" not in provenance["recipe"]["training"]


def test_a_text_that_runs_out_says_what_to_set_and_that_is_enough(inputs, tmp_path, capsys):
    early = "the text may end before the training does: so far training.drop.norm_over_median 1.1"

    def attempt(reserve):
        config = config_of({"norm_over_median": 1.1, "reserve": reserve})
        go(wanted(config), inputs(config), tmp_path, config, seconds=1e9)

    with pytest.raises(SaemakeError) as raised:
        attempt(0.0)
    said = str(raised.value)
    assert "training.drop.norm_over_median 1.1 has left out" in said
    reserve = float(said.split("set training.drop.reserve to ")[1].split(",")[0])
    assert 0 < reserve < 1
    assert early in capsys.readouterr().err  # before the first step, not only at the last
    attempt(reserve)
    assert early not in capsys.readouterr().err


def test_few_that_outweigh_the_others_are_told_once_and_kept(inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(norms, "LARGEST_SHARE", 0.015)
    config = config_of({})
    saes = wanted(config)
    go(saes, inputs(config), tmp_path, config, seconds=1e9)
    told = [line for line in capsys.readouterr().err.splitlines() if "squared norm" in line]
    share = read_json(saes, tmp_path, "provenance.json")["squared_norm_of_largest_1_percent"]
    assert len(told) == 1
    assert (
        f"saemake: test: training: the largest 1 % of the activations have {share:.1%}" in told[0]
    )
