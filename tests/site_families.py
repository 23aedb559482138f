"""Small LMs with random weights of the families that the docs name, and what is at the sites of
their blocks by plain hooks."""

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

from saemake.base import onednn
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights

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
