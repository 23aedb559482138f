"""A pass that is interrupted and goes on ends with the bytes of one that was not."""

import json

import pytest
import torch
from conftest import CONFIG_FILE, DEMO_IN_BFLOAT16, PROJECT, SMALL, merged, raw_config
from texts import tokenised
from unit.test_architectures import data, make

from saemake import architectures
from saemake.base.store import Store
from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import Sweep
from saemake.paths.sweeps import members
from saemake.recipes.training import sae_recipe
from saemake.training import train
from saemake.training.members import Stores, Wanted
from saemake.training.snapshots import Snapshots
from saemake.training.train import Conduct, Inputs, train_pass


def noisy(steps):
    """No token without a direction, which resampling would point a latent at."""
    return (x + 0.01 for x in data(steps))


@pytest.mark.parametrize("name", architectures.names())
def test_a_trainer_goes_on_from_its_state_as_if_never_stopped(name, tmp_path):
    more = {"resample_steps": 10} if name in ("standard", "p_anneal") else {}
    arguments = {"decay_start_fraction": 1.0 if more else 0.8, **more}
    straight = make(name, **arguments)
    if more:  # something to resample after the state is taken
        straight.dictionary.encoder.bias.data[:32] = -10.0
    for step, x in enumerate(noisy(40)):
        if step == 25:
            torch.save(straight.state(), tmp_path / "state.pt")
        straight.update(step, x)
    resumed = make(name, seed=5, **arguments)  # whatever it starts with is replaced
    resumed.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    for step, x in enumerate(noisy(40)):
        if step >= 25:
            resumed.update(step, x)
    assert str(resumed.state()) == str(straight.state())
    for key, value in straight.dictionary.state_dict().items():
        assert torch.equal(resumed.dictionary.state_dict()[key], value)


@pytest.fixture(scope="module")
def small():
    return read(raw_config(merged(DEMO_IN_BFLOAT16, SMALL)), PROJECT, [CONFIG_FILE])


@pytest.fixture(scope="module")
def inputs(small, demo_weights, tmp_path_factory):
    text = tokenised(small, demo_weights, "train", tmp_path_factory.mktemp("tokens"))
    return Inputs(demo_weights, {}, text)


def wanted(config, architecture="top_k", steps=()):
    sweep = Sweep("demo", Hookpoint(3), architecture, "256")
    return [Wanted(str(m), sae_recipe(config, m), steps) for m in members(config, sweep)]


def go(saes, inputs, root, config, seconds=0.0):
    train_pass(saes, inputs, Stores.under(root), Conduct("test", config.logging, seconds))


def stored(saes, root):
    files = ("ae.pt", "config.json", "training.csv")
    return {
        sae.name: [Stores.under(root).saes.read(sae.recipe.hash, f) for f in files] for sae in saes
    }


class Killed(BaseException):
    pass


def kill_before(monkeypatch, step):
    """The pass ends as by SIGKILL at its first look at that step: nothing after it is run."""
    inner = train._Pass._step

    def outer(self):
        if self.step == step:
            raise Killed
        inner(self)

    monkeypatch.setattr(train._Pass, "_step", outer)


@pytest.mark.parametrize("at", [1, 17, 39])
def test_a_killed_pass_goes_on_from_its_snapshot(small, inputs, tmp_path, monkeypatch, at):
    saes = wanted(small, "p_anneal")
    go(saes, inputs, tmp_path / "straight", small, seconds=1e9)
    with monkeypatch.context() as patch:
        kill_before(patch, at)
        with pytest.raises(Killed):
            go(saes, inputs, tmp_path / "killed", small)
    stores = Stores.under(tmp_path / "killed")
    assert [snapshot.step for snapshot in stores.snapshots._all()] == [at]
    go(saes, inputs, tmp_path / "killed", small)
    assert stored(saes, tmp_path / "killed") == stored(saes, tmp_path / "straight")
    assert stores.snapshots.store.entries() == []
    provenance = stores.saes.read(saes[0].recipe.hash, "provenance.json")
    assert json.loads(provenance)["resumes"] == 1


def test_a_damaged_snapshot_is_dropped_and_said(small, inputs, tmp_path, monkeypatch, capsys):
    saes = wanted(small)
    with monkeypatch.context() as patch:
        kill_before(patch, 20)
        with pytest.raises(Killed):
            go(saes, inputs, tmp_path, small)
    (entry,) = (tmp_path / "snapshots").iterdir()
    file = entry / "shared.pt"
    right = file.read_bytes()
    file.write_bytes(right[:500] + bytes([right[500] ^ 1]) + right[501:])
    go(saes, inputs, tmp_path, small, seconds=1e9)
    assert "is damaged (shared.pt has changed)" in capsys.readouterr().out
    provenance = Stores.under(tmp_path).saes.read(saes[0].recipe.hash, "provenance.json")
    assert json.loads(provenance)["resumes"] == 0


def test_what_the_snapshot_has_goes_on_and_the_rest_starts_anew(
    small, inputs, tmp_path, monkeypatch
):
    saes = wanted(small)
    with monkeypatch.context() as patch:
        kill_before(patch, 30)
        with pytest.raises(Killed):
            go(saes[:1], inputs, tmp_path / "killed", small)
    go(saes, inputs, tmp_path / "killed", small, seconds=1e9)
    go(saes, inputs, tmp_path / "straight", small, seconds=1e9)
    assert stored(saes, tmp_path / "killed") == stored(saes, tmp_path / "straight")
    resumes = [
        json.loads(Stores.under(tmp_path / "killed").saes.read(sae.recipe.hash, "provenance.json"))
        for sae in saes
    ]
    assert [provenance["resumes"] for provenance in resumes] == [1, 0]


def test_checkpoints_before_the_snapshot_that_were_not_saved_need_a_new_start(
    small, inputs, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        kill_before(patch, 30)
        with pytest.raises(Killed):
            go(wanted(small), inputs, tmp_path, small)
    saes = wanted(small, steps=(4, 35))
    go(saes, inputs, tmp_path, small, seconds=1e9)
    assert all(sae.is_in(Stores.under(tmp_path)) for sae in saes)


def test_an_sae_is_the_same_alone_in_its_sweep_and_among_all_architectures(small, inputs, tmp_path):
    saes = [wanted(small, name)[0] for name in architectures.names()]
    go(saes, inputs, tmp_path / "all", small, seconds=1e9)
    together = stored(saes, tmp_path / "all")
    for sae in saes:
        go([sae], inputs, tmp_path / "alone", small, seconds=1e9)
    assert stored(saes, tmp_path / "alone") == together
    sweep = wanted(small, "top_k")
    go(sweep, inputs, tmp_path / "sweep", small, seconds=1e9)
    name = sweep[0].name
    assert stored(sweep, tmp_path / "sweep")[name] == together[name]


def test_snapshots_of_others_are_left_alone(tmp_path):
    snapshots = Snapshots(Store(tmp_path, "snapshots"))
    for step, names in ((3, "ab"), (5, "ab"), (4, "cd")):
        snapshots.put(
            step,
            {name: name for name in names},
            "here",
            {"faults": {}},
            {name: {} for name in names},
        )
    assert sorted((s.step, "".join(sorted(s.members))) for s in snapshots._all()) == [
        (4, "cd"),
        (5, "ab"),
    ]
    assert snapshots.covering(["b", "x"], "here").step == 5
    assert snapshots.covering(["x"], "here") is None
    assert snapshots.covering(["b"], "another device or torch") is None
    snapshots.prune("abc")
    assert [s.step for s in snapshots._all()] == [4]
