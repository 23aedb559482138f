"""The sites of a block, in every family that is named in the docs: captures are those of a plain
hook on the module that the family's own code has there, and what is replaced is what the block
adds."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)
from unit.test_evaluation import recipe as evaluation_recipe
from unit.test_evaluation import tokens as text_of

from saemake.base import onednn
from saemake.base.errors import SaemakeError
from saemake.evaluation.baselines import Linear
from saemake.judging.evaluate import judge_by
from saemake.llm.hookpoint import SITES, Hookpoint
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.text.shards import Contexts

CPU, D = torch.device("cpu"), 32
OF_ALL = {
    "vocab_size": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "hidden_size": D,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
GATED = {**OF_ALL, "intermediate_size": 48, "max_position_embeddings": 64}
GROUPED = {**GATED, "num_key_value_heads": 2, "head_dim": 8}
# As the code of each family in transformers 5.23 has them: the module whose first input or output
# is the site.
PRE_NORM = {
    "resid_pre": ("", "input"),
    "attn_out": ("self_attn", "output"),
    "resid_mid": ("post_attention_layernorm", "input"),
    "mlp_in": ("post_attention_layernorm", "output"),
    "mlp_out": ("mlp", "output"),
    "resid_post": ("", "output"),
}
SANDWICHED = {
    **PRE_NORM,
    "attn_out": ("post_attention_layernorm", "output"),
    "resid_mid": ("pre_feedforward_layernorm", "input"),
    "mlp_in": ("pre_feedforward_layernorm", "output"),
    "mlp_out": ("post_feedforward_layernorm", "output"),
}
GPT2 = {
    **PRE_NORM,
    "attn_out": ("attn", "output"),
    "resid_mid": ("ln_2", "input"),
    "mlp_in": ("ln_2", "output"),
}
OPT = {
    **PRE_NORM,
    "resid_mid": ("final_layer_norm", "input"),
    "mlp_in": ("final_layer_norm", "output"),
    "mlp_out": ("fc2", "output"),
}
# Its attention and MLP add the residual stream themselves.
BLOOM = {
    **PRE_NORM,
    "attn_out": ("self_attention.dense", "output"),
    "mlp_out": ("mlp.dense_4h_to_h", "output"),
}
NEOX = {**PRE_NORM, "attn_out": ("attention", "output")}
PARALLEL = {site: place for site, place in NEOX.items() if site != "resid_mid"}
# One norm for both: what the MLP is given is not replaced for attention.
SHARED = {**PARALLEL, "mlp_in": ("mlp", "input")}
GPTJ = {**SHARED, "attn_out": ("attn", "output")}
FALCON = {**SHARED, "attn_out": ("self_attention", "output")}
FAMILIES = {
    "gpt_neox": (GPTNeoXConfig(**GATED), PARALLEL),
    "gpt_neox in sequence": (GPTNeoXConfig(**GATED, use_parallel_residual=False), NEOX),
    "gpt2": (
        GPT2Config(vocab_size=256, n_embd=D, n_layer=3, n_head=4, n_positions=64),
        GPT2,
    ),
    "llama": (LlamaConfig(**GROUPED), PRE_NORM),
    "gemma2": (Gemma2Config(**GROUPED), SANDWICHED),
    "gemma3": (Gemma3TextConfig(**GROUPED), SANDWICHED),
    "qwen2": (Qwen2Config(**GATED, num_key_value_heads=2), PRE_NORM),
    "qwen3": (Qwen3Config(**GROUPED), PRE_NORM),
    "mistral": (MistralConfig(**GROUPED), PRE_NORM),
    "opt": (
        OPTConfig(**OF_ALL, ffn_dim=48, word_embed_proj_dim=D, max_position_embeddings=64),
        OPT,
    ),
    "bloom": (BloomConfig(vocab_size=256, hidden_size=D, n_layer=3, n_head=4), BLOOM),
    "mixtral": (MixtralConfig(**GROUPED, num_local_experts=4), PRE_NORM),
    "qwen2_moe": (
        Qwen2MoeConfig(
            **{**GATED, "num_key_value_heads": 2},
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        ),
        PRE_NORM,
    ),
    "qwen3_moe": (
        Qwen3MoeConfig(**GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
        PRE_NORM,
    ),
    "gptj": (
        GPTJConfig(vocab_size=256, n_embd=D, n_layer=3, n_head=4, n_positions=64, rotary_dim=4),
        GPTJ,
    ),
    "falcon": (FalconConfig(**OF_ALL), FALCON),
}


class Family:
    """A small model with random weights, plain and as SAEs see it."""

    def __init__(self, name, folder):
        self.config, self.places = FAMILIES[name]
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(self.config)
        for weight in model.parameters():
            # Norms and biases too, which are ones and zeros.
            weight.data += 0.1 * torch.randn_like(weight)
        model.save_pretrained(folder)
        self.weights = Weights("mine", folder, None, "float32")
        self.plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def lm(self, hookpoint, *, whole=True):
        with onednn.left_out():  # whose products are rounded otherwise than the plain model's
            return LanguageModel(self.weights, hookpoint, CPU, whole=whole)

    def block(self, layer):
        blocks = next(
            each
            for each in self.plain.modules()
            if isinstance(each, nn.ModuleList) and len(each) == 3
        )
        return blocks[layer]

    def run(self, contexts, layer=0, change=None):
        """The logits, and what is at each site of a block, by plain hooks. `change` is a site, and
        what takes the place of its tensor."""
        found = {}
        handles = []
        for site, (path, side) in self.places.items():
            module = self.block(layer).get_submodule(path)
            put_in = change[1] if change and change[0] == site else None
            if side == "input":
                hook = before(found, site, put_in)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(after(found, site, put_in)))
        try:
            with torch.no_grad():
                given = {"attention_mask": contexts.mask, "use_cache": False}
                logits = self.plain(contexts.ids, **given).logits
        finally:
            for handle in handles:
                handle.remove()
        shape = (*contexts.ids.shape, D)
        return logits, {site: value.reshape(shape) for site, value in found.items()}


def before(found, site, put_in):
    def hook(module, args, kwargs):
        found[site] = args[0].clone()
        if put_in is not None:
            # In place: a block adds to the tensor that its norm is given.
            args[0][:] = put_in.view(args[0].shape)

    return hook


def after(found, site, put_in):
    def hook(module, args, output):
        tensor = output[0] if isinstance(output, tuple) else output
        found[site] = tensor.clone()
        if put_in is not None:
            tensor[:] = put_in.view(tensor.shape)

    return hook


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return Family(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def contexts():
    ids_BL = torch.randint(1, 256, (3, 9), generator=torch.Generator().manual_seed(1))
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[1, 5:] = 0
    return Contexts(ids_BL, mask_BL)


@pytest.mark.parametrize("layer", [0, 2])
def test_captures_are_those_of_plain_hooks_to_the_bit(family, contexts, layer):
    _, expected = family.run(contexts, layer)
    lm = family.lm(Hookpoint(layer), whole=False)
    there = [Hookpoint(layer, site) for site in family.places]
    found = lm.captures(contexts, there)
    assert set(found) == set(there)
    for hookpoint in there:
        assert found[hookpoint].equal(expected[hookpoint.read]), hookpoint
        assert lm.captures(contexts, [hookpoint])[hookpoint].equal(found[hookpoint]), hookpoint
    if "resid_mid" in family.places:
        mid = expected["resid_pre"] + expected["attn_out"]
        assert mid.equal(expected["resid_mid"])
    added = expected["resid_pre"] + expected["attn_out"] + expected["mlp_out"]
    torch.testing.assert_close(added, expected["resid_post"], atol=1e-5, rtol=1e-5)


def test_sites_of_several_layers_come_out_of_one_run(family, contexts):
    lm = family.lm(Hookpoint(2), whole=False)
    there = [Hookpoint(2, "attn_out"), Hookpoint(0, "mlp_out"), Hookpoint(1), Hookpoint(0)]
    found = lm.captures(contexts, there)
    for hookpoint in there:
        _, expected = family.run(contexts, hookpoint.layer)
        assert found[hookpoint].equal(expected[hookpoint.read])


@pytest.mark.parametrize("site", SITES)
def test_a_site_is_replaced_as_by_a_plain_hook(family, contexts, site):
    """Also where the LM begins with the block. What was there, put back, gives the same logits."""
    if site not in family.places:
        return
    lm = family.lm(Hookpoint(1, site))
    run = lm.run(contexts)
    clean, there = family.run(contexts, 1)
    assert run.read_BLD.equal(there[site])
    assert run.written_BLD is run.read_BLD
    assert torch.stack(list(run.logits)).equal(clean)
    put_in = torch.randn(there[site].shape, generator=torch.Generator().manual_seed(2))
    for replacement in (there[site], torch.zeros_like(put_in), put_in):
        expected, _ = family.run(contexts, 1, (site, replacement))
        for before_BLD in (run.before_BLD, None):
            found = torch.stack(list(lm.run_with(contexts, replacement, before_BLD)))
            assert found.equal(expected)
        assert found.equal(clean) == (replacement is there[site])


def test_an_identity_recovers_all_and_zeros_nothing(family, tmp_path):
    """Exactly, at every site, by the evaluation that SAEs are judged by."""
    text = text_of(tmp_path, [[0, 5, 9, 12, 70, 3], [0, 8, 8, 100, 31]])
    identity = Linear(torch.eye(D), torch.zeros(D))
    zeros = Linear(torch.zeros(D, D), torch.zeros(D))
    for site in family.places:
        lm = family.lm(Hookpoint(1, site))
        codecs = {"identity": identity, "zeros": zeros}
        found = judge_by(evaluation_recipe(), codecs, lm, text, "test")
        recovered = {key: each.figures["frac_recovered"] for key, each in found.items()}
        assert recovered == {"identity": 1.0, "zeros": 0.0}, site


def test_a_transcoder_reads_one_site_and_writes_another(family, contexts):
    transcoder, mlp = (family.lm(Hookpoint.at(1, name)) for name in ("mlp_in-mlp_out", "mlp_out"))
    run = transcoder.run(contexts)
    _, there = family.run(contexts, 1)
    assert run.read_BLD.equal(there["mlp_in"])
    assert run.written_BLD.equal(there["mlp_out"])
    assert transcoder.capture(contexts).equal(there["mlp_in"])
    zeros = torch.zeros_like(run.written_BLD)
    found = torch.cat(list(transcoder.run_with(contexts, zeros, run.before_BLD)))
    assert found.equal(torch.cat(list(mlp.run_with(contexts, zeros))))


def test_a_run_stops_at_what_is_wanted_last(family, contexts):
    lm = family.lm(Hookpoint(2), whole=False)
    blocks = lm.model.get_submodule(lm._blocks_name)
    lm.captures(contexts, [Hookpoint(1, "attn_out")])  # finds it
    run = []
    for number, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, number=number: run.append(number))
    mlp = family.places["mlp_out"][0]
    blocks[1].get_submodule(mlp).register_forward_hook(lambda *_: run.append("mlp"))
    lm.captures(contexts, [Hookpoint(1, "attn_out")])
    assert run == [0]
    lm.captures(contexts, [Hookpoint(1, "resid_pre")])
    assert run == [0, 0]


def test_a_site_that_a_model_lacks_is_refused(family, contexts):
    if "resid_mid" in family.places:
        return
    with pytest.raises(SaemakeError) as error:
        family.lm(Hookpoint(1, "resid_mid"), whole=False).capture(contexts)
    assert str(error.value) == (
        "model 'mine' has no resid_mid in its block 1 (its attention and MLP read the same residual"
        " stream, and none lies between them); its sites are resid_pre, attn_out, mlp_in, mlp_out,"
        " resid_post"
    )


def test_norms_after_the_addition_leave_no_site_within_the_block(tmp_path, contexts, monkeypatch):
    """OPT 350M normalises the residual stream itself."""
    config = OPTConfig(
        **OF_ALL,
        ffn_dim=48,
        word_embed_proj_dim=D,
        max_position_embeddings=64,
        do_layer_norm_before=False,
    )
    monkeypatch.setitem(FAMILIES, "opt 350m", (config, {}))
    lm = Family("opt 350m", tmp_path).lm(Hookpoint(1, "mlp_out"))
    with pytest.raises(SaemakeError, match=r"no mlp_out in its block 1 .*resid_pre, resid_post$"):
        lm.run(contexts)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("L3.resid_post", "'L3.resid_post': did you mean 'L3'? resid_post is not spelt"),
        ("L3.atn_out", "no site 'atn_out' in a block; did you mean 'attn_out'?"),
        ("L3.mlp_in-mlpout", "no site 'mlpout' in a block; did you mean 'mlp_out'?"),
        (
            "L3.mlp_out-mlp_in",
            "'mlp_out-mlp_in' writes a site before the one that it reads; did"
            " you mean 'mlp_in-mlp_out'?",
        ),
        (
            "L3.mlp_in-mlp_in",
            "'mlp_in-mlp_in' writes the site that it reads; an SAE of that site is 'mlp_in'",
        ),
        (
            "L03.mlp_in",
            "'L03.mlp_in' is not a layer; layers are L0, L1, ..., and their other sites"
            " L0.attn_out, L0.mlp_in-mlp_out, ...",
        ),
    ],
)
def test_a_misspelt_hookpoint_is_refused(name, said):
    with pytest.raises(SaemakeError) as error:
        Hookpoint.named(name)
    assert str(error.value) == said
