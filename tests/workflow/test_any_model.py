"""A model of a family that no config names, from its folder to metrics.json; a Hub model whose
layers nobody knows yet."""

import json
import shutil

import pytest
import torch
import yaml
from conftest import DEMO_LM, raw_config
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

HUB_MODEL = {"folder": None, "hub": "somebody/unseen"}


@pytest.fixture
def mixture(tmp_path_factory):
    """A folder with a small mixture of experts, drawn at random, and the demo's tokenizer."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("mixture")
    for path in DEMO_LM.glob("tokenizer*"):
        shutil.copy(path, folder)
    vocabulary = json.loads((DEMO_LM / "config.json").read_text())["vocab_size"]
    config = Qwen3MoeConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_experts=3,
        num_experts_per_tok=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def named(fresh, name, **over):
    """Have the config name another model, like the demo but for what is said, without layers."""
    small = yaml.safe_load((fresh.folder / fresh.config_file).read_text())
    model = raw_config(small)["models"]["demo"]
    model = {key: value for key, value in {**model, **over}.items() if value is not None}
    del model["layers"]
    fresh.write({**small, "models": {**small["models"], name: model}})


@pytest.mark.acceptance
def test_a_mixture_of_experts_is_built_without_naming_its_layers(fresh, mixture):
    architectures = {"top_k": {"sweep": [4, 8], "threshold_start_step": 5}}
    named(
        *(fresh, "mixture"),
        folder=str(mixture),
        preset="recent",
        architectures=architectures,
        suite={"layers": [1], "architectures": ["top_k"], "widths": ["256"]},
    )
    assert "mixture has layers L0 to L2, not L3" in fresh.fail(
        "results/mixture/L3/top_k/256/metrics.json"
    )
    fresh.succeed("results/mixture/L1/top_k/256/metrics.json")
    rows = json.loads(fresh.read("results/mixture/L1/top_k/256/metrics.json"))
    assert {row["sparsity"] for row in rows} >= {"k_4", "k_8"}
    assert json.loads(fresh.read("results/mixture/model.json"))["layers"] == 3
    record = json.loads(fresh.read("results/mixture/L1/top_k/256/k_8/provenance.json"))
    assert record["recipe"]["training"]["drop"] == {
        **record["recipe"]["training"]["drop"],
        "bos": True,
        "norm_over_median": 10,
    }


def test_a_hub_model_without_layers_is_fetched_first(fresh):
    named(fresh, "unseen", **HUB_MODEL)
    line = (
        "model 'unseen' is not on this machine, so its layers are not known: fetch it first"
        " (`saemake build results/unseen/model.json`), or write models.unseen.layers"
    )
    assert line in fresh.fail("-n", "results/unseen/L1/top_k/256/metrics.json")
    only = ["--config", "build=[unseen]"]
    assert line in fresh.fail("-n", *only)
    # Anything else goes on, and so does the model itself.
    fresh.succeed("results/demo/model.json", "-n", *only)
    fresh.succeed("results/unseen/model.json", "-n", *only)
