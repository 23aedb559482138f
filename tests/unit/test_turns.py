"""Which models a run works on, by its targets."""

import fcntl
from pathlib import Path

import pytest

from saemake.base.errors import SaemakeError
from saemake.jobs.turns import SHARED, take, touched
from saemake.paths import catalogue as entries


@pytest.mark.parametrize(
    ("target", "models"),
    [
        ("results/demo/L3/top_k/1k/k_8/ae.pt", ["demo"]),
        ("./results/demo/model.json", ["demo"]),
        ("saelens/gemma-2-2b/L12/top_k/16k/k_80/cfg.json", ["gemma-2-2b"]),
        ("published/gemma-2-2b/L12/figures/decoder_match.pdf", [SHARED, "gemma-2-2b"]),
        ("published-to/me/suite/pythia-70m-deduped/plan.txt", ["pythia-70m-deduped"]),
        ("all", ["demo"]),
        ("results/demo/L3/setups/sae_bench_tpp/seed_42.json", ["demo"]),
        (
            "results/gemma-2-2b/L12/top_k/16k/k_80/sae_bench_unlearning.json",
            ["gemma-2-2b", "gemma-2-2b-it"],
        ),
    ],
)
def test_a_target_touches_its_model(config, target, models):
    assert touched(config, [target]) == sorted(models)


def test_no_target_is_what_the_config_builds(config):
    assert touched(config, []) == config.build == ["demo"]


def test_what_is_laid_out_under_hub_touches_the_model_that_it_is_of(config):
    entry = entries.load(config).entries[0]
    assert touched(config, [f"{entry.hub_folder}/ae.pt"]) == [entry.model]
    assert touched(config, [entry.hub_folder]) == [entry.model]
    owner = "/".join(entry.hub_folder.split("/")[:3])
    assert entry.model in touched(config, [owner])


@pytest.mark.parametrize("target", ["figure", "elsewhere/x", "hub/nobody/nothing/ae.pt"])
def test_what_cannot_be_told_touches_everything(config, target):
    assert touched(config, [target]) == sorted([*config.models, SHARED])


def test_targets_together_touch_what_each_touches(config):
    both = ["results/pythia-70m-deduped/model.json", "results/demo/model.json"]
    assert touched(config, both) == ["demo", "pythia-70m-deduped"]


@pytest.mark.parametrize("link", [True, False])
def test_results_that_are_no_folder_are_told_in_one_line(tmp_path, monkeypatch, link):
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    if link:
        results.symlink_to("/nowhere/disk")  # of a disk that is not mounted
    else:
        results.touch()
    with pytest.raises(SaemakeError, match="/nowhere/disk" if link else "must be a folder"):
        take(["demo"])


def test_a_lock_file_of_another_user_is_locked_all_the_same(tmp_path, monkeypatch):
    """It may be read, and not written."""
    monkeypatch.chdir(tmp_path)
    take(["demo"])[0].close()
    may_open = Path.open

    def opened(path, mode="r"):
        if mode != "r":
            raise PermissionError
        return may_open(path, mode)

    monkeypatch.setattr(Path, "open", opened)
    (held,) = take(["demo"])
    with may_open(Path(held.name)) as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
