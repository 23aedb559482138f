"""Any causal LM that transformers loads: its config, its weights, and its parts, which are found by
structure, since each family has its own names for them."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from saemake.base.errors import SaemakeError, first_line
from saemake.llm.depth import KEYS
from saemake.llm.weights import Weights

if TYPE_CHECKING:  # it imports what jobs on a GPU may run without
    from transformers import PreTrainedModel

# What reading a folder raises if files are missing, damaged, or of another kind.
UNREADABLE = (OSError, ValueError, KeyError, ImportError, SafetensorError)
# The keys of the model's width in configs that do not map them to transformers' own name.
WIDTH_KEYS = ("hidden_size", "n_embd", "d_model")
LISTED = 3


def load_tokenizer(weights: Weights) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises SaemakeError if the folder has none."""
    try:
        return AutoTokenizer.from_pretrained(weights.folder, **weights.arguments())
    except UNREADABLE as error:
        raise SaemakeError(
            f"model '{weights.name}': no tokenizer in {weights.folder} ({first_line(error)})"
        ) from None


def read_config(weights: Weights) -> PreTrainedConfig:
    """What the folder's config.json or GGUF file describes. Raises SaemakeError if it cannot be
    read, or needs code that the config does not let run."""
    try:
        return AutoConfig.from_pretrained(weights.model_folder, **weights.model_arguments())
    except UNREADABLE as error:
        raise _unreadable(weights, error) from None


def layers_in(lm_config: PreTrainedConfig) -> int:
    """The number of blocks that a config describes, of its text model. Raises SaemakeError where it
    has no key for it."""
    return _first_of(lm_config, KEYS, "number of blocks")


def width_in(lm_config: PreTrainedConfig) -> int:
    """The width of the residual stream that a config describes."""
    return _first_of(lm_config, WIDTH_KEYS, "width")


def _first_of(lm_config: PreTrainedConfig, keys: tuple[str, ...], what: str) -> int:
    text = lm_config.get_text_config()
    found = (getattr(text, key, None) for key in keys)
    value = next((value for value in found if isinstance(value, int)), None)
    if value is None:
        raise SaemakeError(f"a {type(text).__name__} has no {what} under {' or '.join(keys)}")
    return value


def check_causal(weights: Weights, lm_config: PreTrainedConfig) -> None:
    """Raise SaemakeError if the model is no causal LM. An encoder such as BERT would load as one,
    and see the tokens to come."""
    kind = f"model '{weights.name}' ({weights.folder}) is a {lm_config.model_type}"
    way_out = "name a decoder that predicts the next token, such as GPT-2, Llama or Gemma"
    if lm_config.is_encoder_decoder:
        raise SaemakeError(f"{kind}, an encoder and a decoder, and not a causal LM: {way_out}")
    encoder = type(lm_config) in MODEL_FOR_MASKED_LM_MAPPING
    if encoder and not getattr(lm_config, "is_decoder", False):
        raise SaemakeError(f"{kind}, an encoder, and not a causal LM: {way_out}")
    own = "AutoModelForCausalLM" in (getattr(lm_config, "auto_map", None) or {})
    if type(lm_config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not own:
        raise SaemakeError(f"{kind}, which transformers does not load as a causal LM: {way_out}")


def load(weights: Weights, device: torch.device) -> "PreTrainedModel":
    """The frozen model, on the CPU; a quantised one on `device`.

    Raises SaemakeError if it cannot be read, if tensors of it are not in its files (transformers
    would draw them at random), or if it is to be quantised and cannot be.
    """
    lm_config = read_config(weights)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            weights.model_folder,
            **weights.model_arguments(),
            **attention(lm_config),
            **_quantisation(weights, device),
            dtype=getattr(torch, weights.dtype),
            output_loading_info=True,
        )
    except UNREADABLE as error:
        raise _unreadable(weights, error) from None
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        raise SaemakeError(
            f"model '{weights.name}': the weights in {weights.model_folder} lack"
            f" {', '.join(missing[:LISTED])}{more}; fetch or save them again"
        )
    loaded: PreTrainedModel = model.eval().requires_grad_(False)
    return loaded


def convert(weights: Weights, folder: Path) -> None:
    """Write the weights of a GGUF file, in their dtype, as safetensors with a config.json. Loading
    these gives the tensors that loading the file gives, to the bit."""
    load(weights, torch.device("cpu")).save_pretrained(folder)


def attention(lm_config: PreTrainedConfig) -> dict[str, Any]:
    """How attention must be computed. Torch's own attention has no cap on its logits: some versions
    of transformers use it for Gemma 2 and silently leave the cap out."""
    capped = getattr(lm_config.get_text_config(), "attn_logit_softcapping", None) is not None
    return {"attn_implementation": "eager"} if capped else {}


def _quantisation(weights: Weights, device: torch.device) -> dict[str, Any]:
    """How weights are held. Those of a GGUF file are de-quantised everywhere: transformers would
    multiply by them as they are where a package and a GPU allow it, and round otherwise."""
    if weights.gguf_file is not None and weights.converted is None:
        return {"quantization_config": GgufConfig(dequantize=True)}
    if weights.quantization is None:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SaemakeError(
            f"models.{weights.name}.quantization needs the package bitsandbytes: type `pip install"
            " bitsandbytes` in saemake's environment, or remove the key"
        )
    four = weights.quantization == "4bit"
    chosen = BitsAndBytesConfig(
        load_in_4bit=four,
        load_in_8bit=not four,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, weights.dtype),
    )
    return {"quantization_config": chosen, "device_map": {"": device}}


def _unreadable(weights: Weights, error: Exception) -> SaemakeError:
    place = f"model '{weights.name}' ({weights.folder})"
    if "trust_remote_code" in str(error):
        return SaemakeError(
            f"{place} runs only with Python code of its own, from its folder: read that code, then"
            f" write `trust_remote_code: true` under models.{weights.name}"
        )
    return SaemakeError(f"{place} cannot be read: {first_line(error)}")


def block_list(model: nn.Module, layers: int) -> str:
    """The dotted name of the model's list of blocks: the list of `layers` modules in the decoder
    that no other such list contains (as the experts of a block). Raises SaemakeError if there is
    none, or there are several, so that nobody can tell."""
    whole, decoder = _lists(model, layers), _decoder(model)
    if decoder is not None:  # a model of images has a list in its vision tower too
        inside = {id(module) for module in decoder.modules()}
        whole = {name: each for name, each in whole.items() if id(each) in inside} or whole
    outer = [name for name in whole if not any(name.startswith(f"{other}.") for other in whole)]
    kind = type(model).__name__
    if not outer:
        raise SaemakeError(f"{kind}: it contains no list of {layers} blocks")
    if len(outer) > 1:
        raise SaemakeError(
            f"{kind}: {' and '.join(outer)} are lists of {layers} modules each; which are its"
            " blocks cannot be told"
        )
    return outer[0]


def _lists(model: nn.Module, length: int) -> dict[str, nn.ModuleList]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == length
    }


def _decoder(model: nn.Module) -> nn.Module | None:
    """The text model, as transformers finds it."""
    find = getattr(model, "get_decoder", None)
    decoder = None if find is None else find()
    return decoder if isinstance(decoder, nn.Module) else None


def final_norm(model: nn.Module, blocks: str) -> nn.Module | None:
    """The norm between the last block and the head: the last norm beside the list of blocks and
    after it; or before it, if its name says that it is the final one (OPT). None if there is
    none."""
    parent, _, last = blocks.rpartition(".")
    children = list(model.get_submodule(parent).named_children())
    after = children[[name for name, _ in children].index(last) + 1 :]
    final = [each for each in children if "final" in each[0]]
    norms = [module for _, module in (*final, *after) if "norm" in type(module).__name__.lower()]
    return norms[-1] if norms else None


def head(model: "PreTrainedModel") -> tuple[str, nn.Module] | None:
    """The module that computes logits, and its dotted name; None if transformers knows none."""
    linear: Any = model.get_output_embeddings()
    name = next((name for name, module in model.named_modules() if module is linear), None)
    return None if name is None else (name, linear)
