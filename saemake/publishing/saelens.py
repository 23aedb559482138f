"""SAELens's format: an SAE or a transcoder that `SAE.load_from_disk` reads as the same function of
raw activations. An architecture with its own dictionary class registers the corresponding SAELens
class with `form`; its transcoders are ReLUs or JumpReLUs there (see jump_relu_form).

Shapes: D the model's width, F latents.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from saemake.architectures.abs_top_k.trainer import AbsTopKDictionary
from saemake.architectures.auxk import UntiedDictionary
from saemake.architectures.batch_top_k.trainer import BatchTopKDictionary
from saemake.architectures.gated.trainer import GatedDictionary
from saemake.architectures.hierarchical_top_k.trainer import HierarchicalTopKDictionary
from saemake.architectures.jump_relu.trainer import JumpReluDictionary
from saemake.architectures.matching_pursuit.trainer import MatchingPursuitDictionary
from saemake.architectures.matryoshka_batch_top_k.trainer import MatryoshkaDictionary
from saemake.architectures.relu import ReluDictionary
from saemake.architectures.top_k.trainer import TopKDictionary
from saemake.architectures.top_k_family import KeptDictionary
from saemake.architectures.trainer import Dictionary
from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.llm.hookpoint import Hookpoint
from saemake.paths.names import SaeName
from saemake.publishing.jump_relu_form import jump_relu_form, jump_relu_form_of
from saemake.recipes.training import sae_recipe
from saemake.training import files

# The version of SAELens with these classes and keys. It takes files without a version for older
# ones.
SAELENS = "6.54.12"


@dataclass(frozen=True)
class Form:
    """A dictionary in SAELens: the name of its architecture there, its parameters besides W_enc and
    W_dec, the entries that it adds to cfg.json, and whether it has a W_enc of its own."""

    architecture: str
    parameters: Mapping[str, Tensor]
    entries: dict[str, Any] = field(default_factory=dict)
    subtracts_b_dec: bool = True
    has_encoder: bool = True


@functools.singledispatch
def form(dictionary: Dictionary) -> Form:
    """The form of SAELens that computes the same as the dictionary. Callers use `form_of`. Raises
    SaemakeError if no form is registered for the class."""
    raise SaemakeError(
        f"{type(dictionary).__name__} has no form in SAELens, so it is not exported; register one"
        " with @saemake.publishing.saelens.form.register"
    )


@form.register
def _relu(dictionary: ReluDictionary) -> Form:
    return Form("standard", {"b_enc": dictionary.encoder.bias, "b_dec": dictionary.bias})


@form.register
def _gated(dictionary: GatedDictionary) -> Form:
    parameters = {
        "b_gate": dictionary.gate_bias,
        "b_mag": dictionary.mag_bias,
        "r_mag": dictionary.r_mag,
        "b_dec": dictionary.decoder_bias,
    }
    return Form("gated", parameters)


@form.register
def _jump_relu(dictionary: JumpReluDictionary) -> Form:
    parameters = {
        "b_enc": dictionary.b_enc,
        "b_dec": dictionary.b_dec,
        "threshold": dictionary.threshold,
    }
    return Form("jumprelu", parameters, subtracts_b_dec=False)


@form.register
def _abs_top_k(dictionary: AbsTopKDictionary) -> Form:
    entries = {"k": dictionary.k, "rescale_acts_by_decoder_norm": False}
    return Form("abstopk", _biases(dictionary), entries)


@form.register
def _hierarchical(dictionary: HierarchicalTopKDictionary) -> Form:
    """A top-k of the k of the dictionary's way of inference."""
    entries = {"k": dictionary.kept, "rescale_acts_by_decoder_norm": False}
    return Form("topk", _biases(dictionary), entries)


def _biases(dictionary: UntiedDictionary) -> dict[str, Tensor]:
    return {"b_enc": dictionary.encoder.bias, "b_dec": dictionary.b_dec}


@form.register
def _matching_pursuit(dictionary: MatchingPursuitDictionary) -> Form:
    """k rounds, whatever is left. SAELens's class encodes with W_dec."""
    entries = {
        "max_iterations": dictionary.k,
        "residual_threshold": 0.0,
        "stop_on_duplicate_support": False,
    }
    return Form("matching_pursuit", {"b_dec": dictionary.b_dec}, entries, has_encoder=False)


@form.register(TopKDictionary)
@form.register(BatchTopKDictionary)
@form.register(MatryoshkaDictionary)
def _kept(dictionary: KeptDictionary) -> Form:
    """Top-k, or a JumpReLU whose latents share one threshold, depending on the dictionary's way of
    inference."""
    b_enc, b_dec = dictionary.biases
    parameters = {"b_enc": b_enc, "b_dec": b_dec}
    if dictionary.inference == "top_k":
        entries = {"k": dictionary.kept, "rescale_acts_by_decoder_norm": False}
        return Form("topk", parameters, entries)
    return Form(
        "jumprelu", {**parameters, "threshold": dictionary.threshold.repeat(dictionary.width)}
    )


def has_form(dictionary: Dictionary) -> bool:
    """Whether a form is registered for exactly its class; a subclass may compute something
    else."""
    registered = jump_relu_form.registry if dictionary.transcodes else form.registry
    return type(dictionary) in registered


def form_of(dictionary: Dictionary) -> Form:
    """The dictionary's form in SAELens. Raises SaemakeError if none is registered for exactly its
    class."""
    registered: Form = form.registry.get(type(dictionary), form.registry[object])(dictionary)
    return registered


def transcoder_form(dictionary: Dictionary) -> Form:
    """A transcoder's form in SAELens, of one that keeps the largest latents that of its threshold
    inference. Raises SaemakeError as jump_relu_form_of does."""
    jump, skip = jump_relu_form_of(dictionary), dictionary.W_skip
    parameters = {
        "W_enc": jump.encoder_FD.T,
        "b_enc": jump.bias_F,
        "b_dec": dictionary.output_bias,
        **({} if jump.threshold_F is None else {"threshold": jump.threshold_F}),
        **({} if skip is None else {"W_skip": skip}),
    }
    architecture = "transcoder" if skip is None else "skip_transcoder"
    if jump.threshold_F is not None:
        architecture = f"jumprelu_{architecture}"
    return Form(architecture, parameters, {"d_out": dictionary.d_model}, subtracts_b_dec=False)


def _form_of_any(dictionary: Dictionary) -> Form:
    return transcoder_form(dictionary) if dictionary.transcodes else form_of(dictionary)


def export(config: Config, name: SaeName) -> tuple[bytes, bytes]:
    """sae_weights.safetensors (W_enc [D, F], W_dec [F, D], biases, thresholds; all float32) and
    cfg.json of an SAE under results/. Raises SaemakeError if its files are damaged, or if SAELens
    has no form for it."""
    folder, sweep = Path(name.folder), name.sweep
    files.checked_sum(folder, sae_recipe(config, name).hash)
    dictionary = files.load(
        folder, sweep.architecture, config.latents(sweep.width), torch.device("cpu")
    )
    trained = json.loads((folder / "config.json").read_text())
    dropped = files.read_provenance(folder).get("dropped_ids")
    texts = [config.texts[part].hub for part in config.parts_of(config.models[sweep.model].text)]
    metadata = {
        # In the form in which SAELens's loader of dictionary_learning's files writes them.
        "model_name": trained["trainer"]["lm_name"].split("/")[-1],
        "hook_name": hook_name(sweep.hookpoint.source),
        **_written(sweep.hookpoint),
        "prepend_bos": True,
        # SAELens takes ids. It has no key for positions that are left out by norm.
        **({"exclude_special_tokens": dropped} if dropped else {}),
        "context_size": trained["buffer"]["ctx_len"],
        # One path: of a mixture none.
        "dataset_path": texts[0] if len(texts) == 1 else None,
        "sae_lens_version": SAELENS,
        "sae_lens_training_version": None,
    }
    return weights(dictionary), cfg(dictionary, metadata)


def _written(hookpoint: Hookpoint) -> dict[str, str]:
    return {"hook_name_out": hook_name(hookpoint.target)} if hookpoint.is_transcoder else {}


# TransformerLens's name of each site, below blocks.{layer}. What its hook_mlp_in has is not yet
# normalised, and what ln2.hook_normalized has is not yet multiplied by the norm's weight.
HOOKS: dict[str, str] = {
    "resid_pre": "hook_resid_pre",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp_in": "mlp.hook_in",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}


def hook_name(hookpoint: Hookpoint) -> str:
    """TransformerLens's name of a single site."""
    return f"blocks.{hookpoint.layer}.{HOOKS[hookpoint.read]}"


def weights(dictionary: Dictionary) -> bytes:
    """The parameters as safetensors in float32, without metadata, whose order in the file would
    change from call to call. There is no W_enc where W_dec encodes."""
    form = _form_of_any(dictionary)
    encoder = {"W_enc": dictionary.encoder_weight.T} if form.has_encoder else {}
    parameters = {**encoder, "W_dec": dictionary.decoder_rows, **form.parameters}
    return save({key: value.detach().contiguous() for key, value in parameters.items()})


def cfg(dictionary: Dictionary, metadata: dict[str, Any]) -> bytes:
    """cfg.json: the SAELens class and its settings."""
    saelens_form = _form_of_any(dictionary)
    content = {
        "architecture": saelens_form.architecture,
        "d_in": dictionary.d_model,
        "d_sae": dictionary.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": saelens_form.subtracts_b_dec,
        # Biases and thresholds are for raw activations.
        "normalize_activations": "none",
        "reshape_activations": "none",
        **saelens_form.entries,
        "metadata": metadata,
    }
    return (json.dumps(content, indent=1) + "\n").encode()
