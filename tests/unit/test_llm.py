"""The LM as SAEs see it, against transformers itself, on the demo's LM and text."""

import pytest
import torch
from conftest import DEMO_LM
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PhiConfig,
)

from saemake.llm import model as llm_model
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.model import LanguageModel, load_tokenizer, token_losses
from saemake.llm.weights import Weights
from saemake.text.shards import Contexts

CPU = torch.device("cpu")
TEXTS = [
    "Our purpose is to build, not to destroy; the people of the United States expect as much.",
    "Jobs.",
    "The Congress and the President must act upon the budget, and I ask you to act now.",
]


@pytest.fixture(scope="module")
def contexts(demo_weights):
    documents = load_tokenizer(demo_weights)(TEXTS)["input_ids"]
    longest = max(map(len, documents))
    ids = torch.zeros(len(documents), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, document in enumerate(documents):
        ids[row, : len(document)] = torch.tensor(document)
        mask[row, : len(document)] = 1
    return Contexts(ids, mask)


@pytest.fixture(scope="module")
def plain():
    return AutoModelForCausalLM.from_pretrained(DEMO_LM, dtype=torch.float32).eval()


@pytest.mark.parametrize("layer", [0, 3, 5])
@pytest.mark.parametrize("onednn", [True, False])
def test_captured_activations_are_the_blocks_output(demo_weights, plain, contexts, layer, onednn):
    """To the bit where both multiply by the same library."""
    caught = []
    hook = plain.gpt_neox.layers[layer].register_forward_hook(
        lambda module, inputs, output: caught.append(
            output[0] if isinstance(output, tuple) else output
        )
    )
    with torch.no_grad():
        plain(contexts.ids, attention_mask=contexts.mask, use_cache=False)
    hook.remove()
    for whole in (False, True):
        with torch.backends.mkldnn.flags(enabled=onednn):
            lm = LanguageModel(demo_weights, Hookpoint(layer), CPU, whole=whole)
        tolerance = 1e-5 if onednn else 0
        found = lm.capture(contexts)
        torch.testing.assert_close(found, caught[0], atol=tolerance, rtol=tolerance)


def test_a_capturing_lm_holds_no_block_after_its_layer(demo_weights):
    lm = LanguageModel(demo_weights, Hookpoint(3), CPU, whole=False)
    lists = [m for m in lm.model.modules() if isinstance(m, nn.ModuleList)]
    assert [len(blocks) for blocks in lists] == [4]


def clean_losses(lm, contexts):
    run = lm.run(contexts)
    hidden, logits = run.written_BLD, run.logits
    return hidden, token_losses(logits, contexts)


def losses_with(lm, contexts, hidden):
    return token_losses(lm.run_with(contexts, hidden), contexts)


def test_clean_losses_are_transformers_own(demo_weights, plain, contexts):
    _, losses = clean_losses(LanguageModel(demo_weights, Hookpoint(3), CPU, whole=True), contexts)
    labels = contexts.ids.masked_fill(contexts.mask == 0, -100)
    with torch.no_grad():
        expected = plain(contexts.ids, attention_mask=contexts.mask, labels=labels).loss
    assert losses.mean().item() == pytest.approx(expected.item(), abs=1e-5)
    assert len(losses) == int(contexts.mask[:, 1:].sum())


def test_putting_back_what_was_there_changes_nothing(demo_weights, contexts):
    lm = LanguageModel(demo_weights, Hookpoint(3), CPU, whole=True)
    hidden, clean = clean_losses(lm, contexts)
    assert torch.equal(losses_with(lm, contexts, hidden), clean)


def test_replacing_equals_a_transformers_hook(demo_weights, plain, contexts):
    replacement = torch.randn(*contexts.ids.shape, 128, generator=torch.Generator().manual_seed(0))
    lm = LanguageModel(demo_weights, Hookpoint(2), CPU, whole=True)
    losses = losses_with(lm, contexts, replacement)
    hook = plain.gpt_neox.layers[2].register_forward_hook(lambda *_: replacement)
    labels = contexts.ids.masked_fill(contexts.mask == 0, -100)
    with torch.no_grad():
        expected = plain(contexts.ids, attention_mask=contexts.mask, labels=labels).loss
    hook.remove()
    assert losses.mean().item() == pytest.approx(expected.item(), abs=1e-5)


SMALL = {"vocab_size": 2048, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
FAMILIES = {
    "gpt2": GPT2Config(**SMALL, n_embd=32, n_layer=3, n_head=2),
    "llama": LlamaConfig(
        **SMALL, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
    ),
    "bloom": BloomConfig(**SMALL, hidden_size=32, n_layer=3, n_head=2),
    "falcon": FalconConfig(**SMALL, hidden_size=32, num_hidden_layers=3, num_attention_heads=2),
    "gptj": GPTJConfig(**SMALL, n_embd=32, n_layer=3, n_head=2, rotary_dim=8),
    "gemma2": Gemma2Config(
        **SMALL,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        final_logit_softcapping=0.1,
    ),
    # Its padding's embedding is 0, so that scaled logits are what they were.
    "cohere": CohereConfig(
        **{**SMALL, "pad_token_id": 1},
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
    ),
    "phi": PhiConfig(
        **SMALL, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """Its name, and a folder with a small model of it, biases drawn."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[request.param])
    head = model.get_output_embeddings()
    if head.bias is not None:
        head.bias.data.normal_()
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return request.param, folder


def test_other_families_are_captured_and_replaced_too(family, contexts):
    """Blocks that give a tuple (Bloom, Falcon, GPT-J) as well as those that give a tensor; logits
    that are a linear layer's, capped (Gemma 2) or scaled (Cohere)."""
    name, folder = family
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    lm = LanguageModel(Weights(name, folder, None, "float32"), Hookpoint(1), CPU, whole=True)
    hidden, clean = clean_losses(lm, contexts)
    labels = contexts.ids.masked_fill(contexts.mask == 0, -100)
    with torch.no_grad():
        expected = plain(contexts.ids, attention_mask=contexts.mask, labels=labels).loss
    assert clean.mean().item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(losses_with(lm, contexts, hidden), clean)
    assert not torch.allclose(losses_with(lm, contexts, torch.zeros_like(hidden)), clean)
    assert (lm._head is None) == (name == "cohere")


def test_captures_of_several_layers_are_those_of_each_alone(family, contexts):
    """To the bit: no later block changes what an earlier one gave."""
    name, folder = family
    deepest = LanguageModel(Weights(name, folder, None, "float32"), Hookpoint(2), CPU, whole=False)
    together = deepest.captures(contexts, map(Hookpoint, range(3)))
    for hookpoint, found in together.items():
        weights = Weights(name, folder, None, "float32")
        alone = LanguageModel(weights, hookpoint, CPU, whole=False)
        assert alone.capture(contexts).equal(found)
    assert list(deepest.captures(contexts, [Hookpoint(1)])) == [Hookpoint(1)]


def test_logits_in_bfloat16_are_transformers_own(family, contexts):
    name, folder = family
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    lm = LanguageModel(Weights(name, folder, None, "bfloat16"), Hookpoint(1), CPU, whole=True)
    logits = lm.run(contexts).logits
    with torch.no_grad():
        whole = plain(contexts.ids, attention_mask=contexts.mask).logits
    assert torch.stack(list(logits)).equal(whole)


@pytest.mark.parametrize("positions", [1, 7, 60, 4096])
def test_logits_in_parts_are_the_whole_ones(demo_weights, plain, contexts, positions, monkeypatch):
    monkeypatch.setattr(llm_model, "LOGITS_TOGETHER", {"cpu": positions})
    logits = LanguageModel(demo_weights, Hookpoint(3), CPU, whole=True).run(contexts).logits
    with torch.no_grad():
        whole = plain(contexts.ids, attention_mask=contexts.mask).logits
    torch.testing.assert_close(torch.cat(list(logits)), whole.flatten(0, 1))


def test_padding_changes_no_loss(demo_weights, contexts):
    lm = LanguageModel(demo_weights, Hookpoint(3), CPU, whole=True)
    _, together = clean_losses(lm, contexts)
    alone = []
    for row in range(len(TEXTS)):
        length = int(contexts.mask[row].sum())
        one = Contexts(contexts.ids[row : row + 1, :length], contexts.mask[row : row + 1, :length])
        alone.append(clean_losses(lm, one)[1])
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_attention_with_a_cap_is_computed_by_transformers_own_code(tmp_path):
    Gemma2Config(num_hidden_layers=1).save_pretrained(tmp_path / "gemma")
    GPTNeoXConfig(num_hidden_layers=1).save_pretrained(tmp_path / "neox")
    chosen = [
        llm_model._attention(Weights(name, tmp_path / name, None, "float32"))
        for name in ("gemma", "neox")
    ]
    assert chosen == [{"attn_implementation": "eager"}, {}]
