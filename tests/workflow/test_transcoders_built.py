"""A transcoder with a skip connection by its name: trained, and written for SAELens and for
circuit-tracer."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

import saemake

pytestmark = pytest.mark.acceptance

NAME = "top_k_skip/256/k_4/seed_1"
FOLDER = f"L3.mlp_in-mlp_out/{NAME}"
TRACED = f"circuit-tracer/demo/mlp_in-mlp_out/{NAME}"


def test_it_is_written_as_others_read_it(workflow):
    targets = [f"{TRACED}/layer_3.safetensors", f"saelens/demo/{FOLDER}/cfg.json"]
    workflow.succeed(*targets)
    transcoder = saemake.load(workflow.folder / "results/demo" / FOLDER, inference="threshold")
    assert transcoder.config["trainer"]["site"] == "mlp_in-mlp_out"
    x = torch.randn(100, transcoder.d_model, generator=torch.Generator().manual_seed(0)) * 5
    with torch.no_grad():
        expected = transcoder(x)
    # circuit-tracer's formula.
    of_layer = load_file(workflow.folder / targets[0])
    before = functional.linear(x, of_layer["W_enc"], of_layer["b_enc"])
    acts = before * (before > of_layer["activation_function.threshold"])
    found = acts @ of_layer["W_dec"] + of_layer["b_dec"] + x @ of_layer["W_skip"].T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    cfg = json.loads((workflow.folder / targets[1]).read_text())
    assert cfg["architecture"] == "jumprelu_skip_transcoder"
    assert cfg["metadata"]["hook_name_out"] == "blocks.3.hook_mlp_out"
    # circuit-tracer wants the transcoders of every layer.
    planned = workflow.succeed(f"{TRACED}/config.yaml", "-n")
    assert planned.count("as circuit-tracer reads it") == 5
