"""Any causal LM, from its folder through the job of model.json: families that no config names."""

import dataclasses
import json
import shutil

import pytest
import torch
from conftest import DEMO_LM, PROJECT, raw_config
from hub_server import LocalHub
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    BloomConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from saemake.base.errors import SaemakeError
from saemake.base.store import Store
from saemake.config.checks import read
from saemake.config.depth import layers_of
from saemake.inputs import weights
from saemake.jobs.inputs import fetch_model
from saemake.llm.hookpoint import Hookpoint
from saemake.llm.loading import block_list
from saemake.llm.model import LanguageModel, token_losses
from saemake.llm.weights import Weights
from saemake.recipes import inputs as input_recipes
from saemake.recipes.inputs import fetched_by, model_recipe
from saemake.text.shards import Contexts

CPU = torch.device("cpu")
LAYERS = 3
SIZES = {"vocab_size": 128, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
# As most families since Llama call their sizes.
LLAMA = {
    **SIZES,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
GEMMA = {**LLAMA, "head_dim": 16, "sliding_window": 4}
# As many experts as blocks, so that a block holds a list of that length too where experts are one.
EXPERTS = {"num_experts": LAYERS, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 28,
    "patch_size": 14,
}
FAMILIES = {
    "gpt_neox": GPTNeoXConfig(**{k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}),
    "gpt2": GPT2Config(**SIZES, n_embd=32, n_layer=LAYERS, n_head=2, n_positions=64),
    "llama": LlamaConfig(**LLAMA),
    "mistral": MistralConfig(**LLAMA, sliding_window=4),
    "qwen2": Qwen2Config(**LLAMA),
    "qwen3": Qwen3Config(**LLAMA, head_dim=16),
    "gemma2": Gemma2Config(**GEMMA),
    "gemma3_text": Gemma3TextConfig(**GEMMA),
    "gemma3": Gemma3Config(text_config=GEMMA, vision_config=VISION, mm_tokens_per_image=1),
    "opt": OPTConfig(
        **SIZES,
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        ffn_dim=48,
        max_position_embeddings=64,
    ),
    "bloom": BloomConfig(**SIZES, hidden_size=32, n_layer=LAYERS, n_head=2),
    "mixtral": MixtralConfig(**LLAMA, num_local_experts=LAYERS, num_experts_per_tok=2),
    "qwen2_moe": Qwen2MoeConfig(**LLAMA, **EXPERTS, shared_expert_intermediate_size=24),
    "qwen3_moe": Qwen3MoeConfig(**LLAMA, **EXPERTS, head_dim=16),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """A folder with a small model of a family, drawn at random, as its job finds it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def contexts():
    ids_BL = torch.randint(2, 128, (3, 12), generator=torch.Generator().manual_seed(0))
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[1, 9:] = 0
    return Contexts(ids_BL, mask_BL)


def configured(over):
    """A config whose model `lm` says no layers; `over` lies over it."""
    raw = raw_config()
    demo = {key: value for key, value in raw["models"]["demo"].items() if key != "layers"}
    raw["models"]["lm"] = {**demo, "context_tokens": 64, "suite": {**demo["suite"], "layers": [1]}}
    raw["models"]["lm"] = {
        key: value for key, value in {**raw["models"]["lm"], **over}.items() if value is not None
    }
    return read(raw, PROJECT, [])


def described(config, folder):
    """What the job of model.json writes."""
    fetch_model(config, "lm", str(folder / "model.json"))
    return json.loads((folder / "model.json").read_text())


def hooked(plain, block, contexts):
    """What a plain hook on a block of a plain model catches, and that model's loss."""
    caught = []
    hook = block.register_forward_hook(
        lambda module, inputs, output: caught.append(
            output[0] if isinstance(output, tuple) else output
        )
    )
    labels = contexts.ids.masked_fill(contexts.mask == 0, -100)
    with torch.no_grad():
        loss = plain(contexts.ids, attention_mask=contexts.mask, labels=labels).loss
    hook.remove()
    return caught[0], loss.item()


def test_a_family_is_described_captured_and_judged(family, contexts, tmp_path, monkeypatch):
    """To the bit where both multiply by the same library."""
    monkeypatch.chdir(tmp_path)
    config = configured({"folder": str(family)})
    found = described(config, tmp_path)
    assert (found["layers"], found["d_model"], found["vocabulary"]) == (LAYERS, 32, 128)
    assert layers_of(config, "lm") == LAYERS
    lm_weights, _ = weights.read(config, tmp_path / "model.json")
    plain = AutoModelForCausalLM.from_pretrained(
        family, dtype=torch.float32, attn_implementation=attention_of(family)
    ).eval()
    blocks = plain.get_submodule(block_list(plain, LAYERS))
    assert {type(block).__name__ for block in blocks} == {type(blocks[0]).__name__}
    with torch.backends.mkldnn.flags(enabled=False):
        lm = LanguageModel(lm_weights, Hookpoint(1), CPU, whole=True)
        capturing = LanguageModel(lm_weights, Hookpoint(1), CPU, whole=False)
    caught, loss = hooked(plain, blocks[1], contexts)
    run = lm.run(contexts)
    hidden, logits = run.written_BLD, run.logits
    assert hidden.equal(caught)
    assert capturing.capture(contexts).equal(caught)
    assert token_losses(logits, contexts).mean().item() == pytest.approx(loss, abs=1e-5)
    assert lm.final_norm is not None


def attention_of(folder):
    return "eager" if "gemma2" in (folder / "config.json").read_text() else None


class Nested(nn.Module):
    """Blocks that each hold a list as long as theirs, below a list that holds them all."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.ModuleDict({"experts": experts(LAYERS)}) for _ in range(LAYERS)]
        self.groups = nn.ModuleList([nn.ModuleDict({"blocks": nn.ModuleList(blocks)})])


def experts(count):
    return nn.ModuleList([nn.Linear(2, 2) for _ in range(count)])


def test_a_list_inside_a_block_is_not_taken_for_the_blocks():
    assert block_list(Nested(), LAYERS) == "groups.0.blocks"


def test_two_lists_that_could_be_the_blocks_are_refused():
    model = nn.ModuleDict({"left": experts(LAYERS), "right": experts(LAYERS)})
    with pytest.raises(SaemakeError, match="left and right are lists of 3 modules each; which are"):
        block_list(model, LAYERS)


def test_the_blocks_of_a_model_of_images_too_are_those_of_its_text():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(FAMILIES["gemma3"])
    assert block_list(model, LAYERS) == "model.language_model.layers"


# Layers that the config leaves to the model.


def test_layers_that_are_read_give_the_recipe_of_layers_that_are_written():
    written, read_ = (configured({"folder": str(DEMO_LM), "layers": each}) for each in (6, None))
    assert model_recipe(written, "lm") == model_recipe(read_, "lm")
    assert fetched_by(written, "lm") == fetched_by(read_, "lm")


def said(over, tmp_path=None):
    """The line by which a config, or else the model's job, is refused."""
    with pytest.raises(SaemakeError) as caught:
        weights.fetch(configured(over), "lm", Store(tmp_path, "revisions"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_layers_that_differ_are_refused(tmp_path):
    over = {"folder": str(DEMO_LM), "layers": 7}
    assert "'models.lm.layers' says 7; the model has 6: write that" in said(over, tmp_path)


def test_a_suite_below_the_last_layer_is_refused_where_layers_are_read():
    suite = {**raw_config()["models"]["demo"]["suite"], "layers": [6]}
    line = said({"folder": str(DEMO_LM), "suite": suite})
    assert "'models.lm.suite.layers': lm has layers 0 to 5, not 6" in line


def test_a_hub_model_without_layers_says_how_to_fetch_it():
    config = configured({"folder": None, "hub": "somebody/unseen"})
    with pytest.raises(SaemakeError) as caught:
        layers_of(config, "lm")
    assert "fetch it first (`saemake build results/lm/model.json`), or write" in str(caught.value)


def test_the_layers_of_a_hub_model_are_those_that_were_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = configured({"folder": None, "hub": "somebody/unseen"})
    before = fetched_by(config, "lm")
    place = tmp_path / "results" / "lm" / "model.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"hub": "somebody/else", "layers": 4}))
    with pytest.raises(SaemakeError):
        layers_of(config, "lm")
    place.write_text(json.dumps({"hub": "somebody/unseen", "layers": 4}))
    assert layers_of(config, "lm") == 4
    # What the job of model.json is known by stays, so that it does not run twice.
    assert fetched_by(config, "lm") == before


# What is no causal LM, or not all of one.


def changed(folder, tmp_path, **keys):
    """A copy of a folder whose config.json has other values."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    content = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**content, **keys}))
    return copy


def test_an_encoder_is_refused(tmp_path):
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(**small, vocab_size=64, intermediate_size=16)).save_pretrained(
        tmp_path / "bert"
    )
    line = said({"folder": str(tmp_path / "bert")}, tmp_path)
    assert "is a bert, an encoder, and not a causal LM: name a decoder" in line


def test_an_encoder_with_a_decoder_is_refused(tmp_path):
    small = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    T5ForConditionalGeneration(small).save_pretrained(tmp_path / "t5")
    assert "is a t5, an encoder and a decoder" in said({"folder": str(tmp_path / "t5")}, tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    folder = changed(DEMO_LM, tmp_path)
    (folder / "model.safetensors").unlink()
    assert "has no weights (model.safetensors or" in said({"folder": str(folder)}, tmp_path)
    (folder / "own.gguf").write_bytes(b"GGUF")
    assert "write models.lm.gguf_file: own.gguf" in said({"folder": str(folder)}, tmp_path)


def test_a_missing_part_of_the_weights_is_named(tmp_path):
    folder = changed(DEMO_LM, tmp_path)
    (folder / "model.safetensors").rename(folder / "model-1-of-2.safetensors")
    parts = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(parts))
    assert "lacks model-2-of-2.safetensors, which its" in said({"folder": str(folder)}, tmp_path)


def test_tensors_that_the_files_lack_are_not_drawn_at_random(tmp_path):
    """transformers fills them in with a warning; here the config asks for more than there is."""
    folder = changed(DEMO_LM, tmp_path, num_hidden_layers=7)
    config = configured({"folder": str(folder)})
    found = weights.locate(config, "lm", None)
    with pytest.raises(SaemakeError, match=r"lack gpt_neox\.layers\.6\..*; fetch or save"):
        LanguageModel(found, Hookpoint(1), CPU, whole=False)


@pytest.mark.parametrize(("text", "fault"), [("{", "not valid JSON"), ("[1]", "it is no object")])
def test_a_config_that_is_no_json_is_one_line(tmp_path, text, fault):
    folder = changed(DEMO_LM, tmp_path)
    (folder / "config.json").write_text(text)
    assert fault in said({"folder": str(folder)}, tmp_path)
    with_layers = said({"folder": str(folder), "layers": 6}, tmp_path)
    assert with_layers.startswith("model 'lm' (")
    assert "cannot be read: " in with_layers


def test_a_dtype_that_there_is_not_is_refused():
    assert "'models.lm.dtype'" in said({"folder": str(DEMO_LM), "dtype": "float8"})


# Code of the model's own.

OWN_CODE = {
    "configuration_own.py": """
from transformers import LlamaConfig

class OwnConfig(LlamaConfig):
    model_type = "own_llama"
""",
    "modeling_own.py": """
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
""",
}
AUTO_MAP = {
    "AutoConfig": "configuration_own.OwnConfig",
    "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder with a small Llama."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("plain")
    AutoModelForCausalLM.from_config(FAMILIES["llama"]).save_pretrained(folder)
    return folder


@pytest.fixture
def own(llama, tmp_path, monkeypatch):
    """A copy under a family of its own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    folder = changed(llama, tmp_path, model_type="own_llama", auto_map=AUTO_MAP)
    for name, text in OWN_CODE.items():
        (folder / name).write_text(text)
    return folder


def test_own_code_runs_only_where_the_config_says_so(own, llama, tmp_path, contexts):
    line = said({"folder": str(own)}, tmp_path)
    assert "runs only with Python code of its own" in line
    assert "write `trust_remote_code: true` under models.lm" in line
    config = configured({"folder": str(own), "trust_remote_code": True})
    found = weights.fetch(config, "lm", Store(tmp_path, "revisions"))
    assert {*OWN_CODE, "model.safetensors"} <= set(found["sha256"])
    lm = LanguageModel(weights.locate(config, "lm", None), Hookpoint(1), CPU, whole=False)
    assert type(lm.model).__name__ == "OwnForCausalLM"
    plain = LanguageModel(Weights("lm", llama, None, "float32"), Hookpoint(1), CPU, whole=False)
    assert lm.capture(contexts).equal(plain.capture(contexts))


def test_own_code_is_part_of_the_recipe(own):
    def recipe():
        input_recipes._folder_digest.cache_clear()  # it remembers as long as a process lives
        return model_recipe(configured({"folder": str(own), "trust_remote_code": True}), "lm")

    before = recipe()
    assert before.model_dump()["trust_remote_code"] is True
    (own / "modeling_own.py").write_text(OWN_CODE["modeling_own.py"] + "# changed\n")
    assert recipe().hash != before.hash


def test_own_code_in_another_repository_is_refused(own, tmp_path):
    elsewhere = {key: f"somebody/code--{value}" for key, value in AUTO_MAP.items()}
    folder = changed(own, tmp_path / "again", auto_map=elsewhere, model_type="llama")
    line = said({"folder": str(folder), "trust_remote_code": True}, tmp_path)
    assert "its code is in another repository (somebody/code)" in line


def test_own_code_of_a_branch_is_refused():
    hub = {"folder": None, "hub": "somebody/own", "trust_remote_code": True}
    assert "needs a commit as 'revision' (40 hex digits)" in said(hub)
    configured({**hub, "revision": "0123456789" * 4})


def test_own_code_is_fetched_only_where_it_may_run(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with LocalHub() as hub, hub.inside(tmp_path / "hf"):
        files = {each.name: each.read_bytes() for each in own.iterdir()}
        commit = hub.commit("model", "somebody/own", files)
        place = {"folder": None, "hub": "somebody/own", "revision": commit}
        assert "runs only with Python code of its own" in said(place, tmp_path)
        assert not [path for _, path, _ in hub.requests if path.endswith(".py")]
        config = configured({**place, "trust_remote_code": True})
        found = weights.fetch(config, "lm", Store(tmp_path, "revisions"))
        assert set(OWN_CODE) <= set(found["sha256"])
        assert found["layers"] == layers_of(config, "lm") == LAYERS  # in the Hub's cache


# Quantised weights.


def test_quantised_weights_are_in_the_recipe_only_where_they_are():
    plain, four = (
        configured({"folder": str(DEMO_LM), "quantization": bits}) for bits in (None, "4bit")
    )
    assert "quantization" not in model_recipe(plain, "lm").model_dump()
    assert model_recipe(four, "lm").model_dump()["quantization"] == "4bit"


def test_quantised_weights_without_their_package_are_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = configured({"folder": str(DEMO_LM), "quantization": "8bit"})
    with pytest.raises(SaemakeError, match=r"models\.lm\.quantization needs the package bitsandby"):
        LanguageModel(weights.locate(config, "lm", None), Hookpoint(1), CPU, whole=False)


def test_quantised_weights_are_of_one_device():
    assert "exclude each other" in said(
        {"folder": str(DEMO_LM), "quantization": "4bit", "lm_devices": 2}
    )


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantised_weights_are_near_the_others(demo_weights, contexts, bits):
    """Where bitsandbytes is installed."""
    pytest.importorskip("bitsandbytes")
    plain = LanguageModel(demo_weights, Hookpoint(1), CPU, whole=True)
    held = LanguageModel(
        dataclasses.replace(demo_weights, quantization=bits), Hookpoint(1), CPU, whole=True
    )
    run = held.run(contexts)
    hidden, logits = run.written_BLD, run.logits
    cosines = torch.cosine_similarity(hidden, plain.capture(contexts), dim=-1)
    assert 0.9 < cosines.mean() < 1
    clean = token_losses(logits, contexts)
    assert token_losses(held.run_with(contexts, hidden), contexts).allclose(clean)
