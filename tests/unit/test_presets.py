"""Presets: values under a model's own, which recipes have and whose name they do not."""

import pytest
import yaml
from conftest import PROJECT, raw_config

from saemake.base.errors import SaemakeError
from saemake.config import rebuilding
from saemake.config.checks import read
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import SaeName, Sweep
from saemake.recipes.judging import sae_evaluation_recipe
from saemake.recipes.training import sae_recipe

SAE = SaeName(Sweep("demo", Hookpoint(3), "top_k", "1k"), 8)
MASSIVE = {"norm_over_median": 10}
RECENT = {
    "prepend_bos": True,
    "training": {"drop": {"bos": True, **MASSIVE}},
    "evaluations": {
        name: {"drop": {"bos": True, **MASSIVE}}
        for name in ("dictionary_learning", "sae_bench_core")
    },
}


def configured(demo, **over):
    return read(raw_config({"models": {"demo": demo}, **over}), PROJECT, [])


def refused(demo, **over):
    with pytest.raises(SaemakeError) as caught:
        configured(demo, **over)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def recipes(config):
    evaluations = config.text_evaluations
    return [sae_recipe(config, SAE), *(sae_evaluation_recipe(config, SAE, e) for e in evaluations)]


def test_a_preset_is_what_a_model_could_have_written_itself():
    named, written = configured({"preset": "recent"}), configured(RECENT)
    assert recipes(named) == recipes(written)
    assert recipes(named) != recipes(configured({}))
    assert "recent" not in str([recipe.model_dump() for recipe in recipes(named)])
    tokens = sae_recipe(named, SAE).tokens
    assert tokens.prepend_bos
    assert tokens.dropped == ["bos"]


def test_the_preset_without_bos_leaves_out_norms_alone():
    recipe = sae_recipe(configured({"preset": "without_bos"}), SAE)
    assert recipe.training.drop.norm_over_median == 10
    assert not recipe.training.drop.kinds
    assert not recipe.tokens.prepend_bos


def test_a_models_own_values_lie_over_its_preset():
    own = {"preset": "recent", "prepend_bos": False, "training": {"drop": {"norm_over_median": 20}}}
    config = configured(own)
    assert not config.models["demo"].prepend_bos
    drop = config.training_of("demo").drop
    assert (drop.bos, drop.norm_over_median) == (True, 20)
    # What the demo says of training beside the preset's keys stays.
    assert config.training_of("demo").batch_tokens == 512


def test_a_preset_of_ones_own():
    mine = {"mine": {"architectures": {"top_k": {"sweep": [3]}}}}
    config = configured({"preset": "mine", "architectures": {"top_k": {}}}, presets=mine)
    demo = raw_config()["models"]["demo"]["architectures"]["top_k"]
    assert config.settings_of("demo", "top_k").sweep == demo["sweep"]  # the model's own
    assert config.settings_of("demo", "gated") == configured({}).settings_of("demo", "gated")


def test_the_rebuilt_config_of_a_suite_needs_no_preset():
    config = configured({"preset": "recent"})
    rebuilt = yaml.safe_load(rebuilding.config_yaml(config, "demo"))
    assert "preset" not in rebuilt["models"]["demo"]
    again = read(raw_config(rebuilt), PROJECT, [])
    assert recipes(again) == recipes(config)


def test_bad_presets_are_one_line():
    assert "'models.demo.preset': no preset 'recnt'; did you mean 'recent'?" in refused(
        {"preset": "recnt"}
    )
    assert "'models.demo.preset'" in refused({"preset": ["recent"]})
    unknown = {"mine": {"prepend_boss": True}}
    right = "'presets.mine.prepend_boss': unknown; did you mean 'prepend_bos'?"
    assert right in refused({}, presets=unknown)
    assert right in refused({"preset": "mine"}, presets=unknown)
    assert "'models.demo.training.drp': unknown" in refused(
        {"preset": "mine"}, presets={"mine": {"training": {"drp": {}}}}
    )
