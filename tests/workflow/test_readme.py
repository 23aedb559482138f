"""What the README tells a user to run, run as it says."""

import json
import re
import subprocess
import sys

import pytest
import torch
from conftest import DEMO_LM, PROJECT
from transformers import AutoModelForCausalLM, AutoTokenizer

from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel
from saemake.text.shards import Contexts

K_8 = "results/demo/L3/top_k/1k/k_8"
CPU = torch.device("cpu")
SHOWN = """
import json

def error(x):
    return float((x - sae.decode(sae.encode(x))).norm() / (x - x.mean(0)).norm())

print(json.dumps({
    "shapes": [list(tensor.shape) for tensor in (x, f, x_hat)],
    "raw": error(x),
    "normalised": error(x / sae.config["trainer"]["norm_factor"]),
    "layer": sae.config["trainer"]["layer"],
    "active": (f > 0).sum(dim=1).tolist(),
    "latents": latents.tolist(),
    "values": values.tolist(),
}))
"""


def snippet() -> str:
    text = (PROJECT / "README.md").read_text()
    (code,) = re.findall(r"^## Use it\n+```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return code


def run(workflow, code):
    """Code of the docs in the folder of a workflow: what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=workflow.folder,
        env=workflow.environment(PYTHONPATH=str(PROJECT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_snippet_runs_and_gives_what_it_says(workflow):
    """In a tree whose SAE is trained for few steps only."""
    workflow.configure({"models": {"demo": {"architectures": {"top_k": {"sweep": [8]}}}}})
    workflow.succeed("results/demo/L3/top_k/1k/metrics.json")
    (workflow.folder / "resources").symlink_to(PROJECT / "resources")
    assert K_8 in snippet()
    printed = run(workflow, snippet() + SHOWN)
    found = json.loads(printed.splitlines()[-1])
    tokenizer = AutoTokenizer.from_pretrained(DEMO_LM)
    tokens = len(tokenizer("The state of the Union is strong").input_ids)
    assert found["shapes"] == [[tokens, 128], [tokens, 1024], [tokens, 128]]
    # After 40 steps it reconstructs a little; of what the training divided, less than nothing.
    assert found["raw"] < 0.95
    assert found["normalised"] > 1
    assert found["layer"] == 3
    assert found["active"] == [8] * tokens
    assert len(set(found["latents"])) == 5
    assert found["values"] == sorted(found["values"], reverse=True)
    assert found["values"][-1] > 0
    check_page(workflow)


def check_page(workflow):
    """docs/python.md's blocks run one after the other, and print what they say."""
    page = (PROJECT / "docs" / "python.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    printed = run(workflow, "\n".join(blocks))
    assert printed.startswith("8 top_k\n0.")
    printed = " ".join(printed.split())
    assert "position token latent activation 0 0 The" in printed
    assert "sparsity inference sae_bench_core.l0 sae_bench_core.ce_loss_score k_8" in printed


@pytest.fixture(scope="module")
def hidden_states():
    """Contexts of the demo's LM, and what transformers calls their hidden states."""
    tokens = AutoTokenizer.from_pretrained(DEMO_LM)("We the people, in peace", return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(DEMO_LM, dtype=torch.float32)
    with torch.no_grad():
        found = model(**tokens, output_hidden_states=True).hidden_states
    return tokens, found, model.gpt_neox.final_layer_norm


def captured(demo_weights, layer, tokens):
    lm = LanguageModel(demo_weights, Hookpoint(layer), CPU, whole=False)
    return lm.capture(Contexts(tokens.input_ids, tokens.attention_mask))


def test_a_layer_is_the_hidden_state_after_its_block(demo_weights, hidden_states):
    tokens, hidden, _ = hidden_states
    last = len(hidden) - 2
    for layer in range(last):
        found = captured(demo_weights, layer, tokens)
        torch.testing.assert_close(found, hidden[layer + 1], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(found, hidden[layer], rtol=1e-2, atol=1e-2)


def test_the_last_layer_is_before_the_final_norm_and_the_last_hidden_state_after(
    demo_weights, hidden_states
):
    tokens, hidden, final_norm = hidden_states
    found = captured(demo_weights, len(hidden) - 2, tokens)
    assert not torch.allclose(found, hidden[-1], rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        torch.testing.assert_close(final_norm(found), hidden[-1], rtol=1e-4, atol=1e-4)
