import json

import pytest
from conftest import PROJECT, raw_config

from saemake.base.digest import digest
from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import SaeName, Sweep
from saemake.recipes.inputs import _folder_digest, model_recipe
from saemake.recipes.judging import sae_evaluation_recipe
from saemake.recipes.training import sae_recipe


def hashes(over=None, model="demo"):
    config = read(raw_config(over), PROJECT, [])
    names = {
        "top_k": SaeName(Sweep(model, Hookpoint(3), "top_k", "1k"), 8),
        "standard_new": SaeName(Sweep(model, Hookpoint(3), "standard_new", "1k"), 0.1),
    }
    return {key: sae_recipe(config, name).hash for key, name in names.items()}


def changed(over, model="demo"):
    before, after = hashes(model=model), hashes(over, model)
    return {key for key in before if before[key] != after[key]}


BOTH = {"top_k", "standard_new"}


@pytest.mark.parametrize(
    ("over", "stale"),
    [
        ({"training": {"seed": 1}}, BOTH),
        ({"models": {"demo": {"training": {"learning_rate": 2e-3}}}}, BOTH),
        ({"models": {"demo": {"train_tokens": 400_000}}}, BOTH),
        ({"models": {"demo": {"buffer_tokens": 10_000}}}, BOTH),
        ({"models": {"demo": {"llm_batch_contexts": 8}}}, BOTH),
        ({"models": {"demo": {"context_tokens": 128}}}, BOTH),
        ({"widths": {"1k": 1000}}, BOTH),
        ({"architectures": {"top_k": {"auxk_alpha": 0.1}}}, {"top_k"}),
        ({"architectures": {"standard_new": {"sparsity_warmup_steps": 1}}}, set()),
        (
            {"models": {"demo": {"architectures": {"standard_new": {"sparsity_warmup_steps": 1}}}}},
            {"standard_new"},
        ),
        ({"models": {"demo": {"architectures": {"top_k": {"sweep": [8, 9]}}}}}, set()),
        ({"models": {"gemma-2-2b": {"train_tokens": 10**9}}}, set()),
        ({"models": {"demo": {"evaluations": {"dictionary_learning": {"documents": 5}}}}}, set()),
        ({"logging": {"every_steps": 7}}, set()),
        ({"build": []}, set()),
    ],
)
def test_a_recipe_changes_with_what_its_bytes_depend_on_and_with_nothing_else(over, stale):
    assert changed(over) == stale


def test_the_hash_is_of_sorted_json():
    assert digest({"a": 1, "b": [2]}) == digest(json.loads('{"b": [2], "a": 1}'))


def test_a_local_model_is_its_content_not_its_place(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "README.md").write_text(folder.name)  # says nothing about the weights

    def content(folder):
        config = read(raw_config({"models": {"demo": {"folder": str(folder)}}}), PROJECT, [])
        return model_recipe(config, "demo").hash

    assert content(first) == content(second)
    (second / "config.json").write_text("{ }")
    _folder_digest.cache_clear()
    assert content(first) != content(second)


def test_an_evaluation_changes_with_its_sae_and_with_its_text(config):
    name = SaeName(Sweep("demo", Hookpoint(3), "top_k", "1k"), 8)
    base = sae_evaluation_recipe(config, name, "dictionary_learning").hash
    for over in (
        {"models": {"demo": {"evaluations": {"dictionary_learning": {"documents": 5}}}}},
        {"models": {"demo": {"train_tokens": 400_000}}},
    ):
        other = read(raw_config(over), PROJECT, [])
        assert sae_evaluation_recipe(other, name, "dictionary_learning").hash != base


def test_a_recipe_holds_no_path_of_this_machine(config):
    for member in (SaeName(Sweep("demo", Hookpoint(3), "top_k", "1k"), 8),):
        text = json.dumps(sae_recipe(config, member).model_dump(mode="json"))
        assert str(PROJECT) not in text
