"""An LM over two GPUs computes what it computes on one. Skipped where there are not two."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from saemake.base import devices
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel, token_losses
from saemake.llm.weights import Weights
from saemake.text.shards import Contexts

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs")

# The largest difference of an activation or a logit, over the largest value (docs/scaling.md).
TOLERANCES = {"float32": 1e-5, "bfloat16": 2**-6}
SIZES = {
    "vocab_size": 32_000,
    "hidden_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 4096,
}
KINDS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "gemma2": Gemma2Config(**SIZES, sliding_window=128),  # tied, with capped logits
}


def close(found, expected, dtype):
    largest = expected.float().abs().max()
    return (found.float() - expected.float()).abs().max() <= TOLERANCES[dtype] * largest


@pytest.mark.parametrize("layer", [2, 6])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kind", KINDS)
def test_activations_and_logits_are_those_of_one_gpu(kind, dtype, layer, tmp_path):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(KINDS[kind]).save_pretrained(tmp_path)
    first = devices.choose(4)
    ids_BL = torch.randint(0, SIZES["vocab_size"], (8, 256))
    contexts = Contexts(ids_BL, torch.ones_like(ids_BL))
    at = Hookpoint(layer)
    one, two = (
        LanguageModel(Weights(kind, tmp_path, None, dtype, count), at, first, whole=True)
        for count in (1, 2)
    )
    assert {each.device.index for each in two.model.parameters()} == {0, 1}
    run = one.run(contexts)
    hidden, logits = run.written_BLD, run.logits
    run_two = two.run(contexts)
    hidden_two, logits_two = run_two.written_BLD, run_two.logits
    logits_two = list(logits_two)
    assert {each.device for each in (hidden_two, *logits_two)} == {hidden.device}
    assert close(hidden_two, hidden, dtype)
    assert close(torch.cat(logits_two), torch.cat(list(logits)), dtype)
    put_in = torch.randn_like(hidden)
    with_it, with_it_two = (torch.cat(list(lm.run_with(contexts, put_in))) for lm in (one, two))
    assert close(with_it_two, with_it, dtype)
    # What was there, put back, changes nothing.
    clean = token_losses(iter(logits_two), contexts)
    assert token_losses(two.run_with(contexts, hidden_two), contexts).equal(clean)
    cut = LanguageModel(Weights(kind, tmp_path, None, dtype, 2), at, first, whole=False)
    captured = cut.captures(contexts, [Hookpoint(0), at])
    assert close(captured[at], hidden, dtype)
    assert captured[Hookpoint(0)].device == hidden.device
