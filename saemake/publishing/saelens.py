"""SAELens's format: an SAE as its `SAE.load_from_disk` reads it, the same function of raw
activations. An architecture with a dictionary of its own registers what that is there (see `form`).

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

from saemake.architectures.batch_top_k.trainer import BatchTopKDictionary
from saemake.architectures.gated.trainer import GatedDictionary
from saemake.architectures.jump_relu.trainer import JumpReluDictionary
from saemake.architectures.matryoshka_batch_top_k.trainer import MatryoshkaDictionary
from saemake.architectures.relu import ReluDictionary
from saemake.architectures.top_k.trainer import KeptDictionary, TopKDictionary
from saemake.architectures.trainer import Dictionary
from saemake.base.errors import SaemakeError
from saemake.config.config import Config
from saemake.paths.names import SaeName
from saemake.recipes import sae_recipe
from saemake.training import files

# Whose classes and keys these are; it reads what has no version as something older.
SAELENS = "6.54.12"


@dataclass(frozen=True)
class Form:
    """A dictionary as one of SAELens's classes: what that is called there, its parameters beside
    W_enc and W_dec, and the entries of cfg.json that it has of its own."""

    architecture: str
    parameters: Mapping[str, Tensor]
    entries: dict[str, Any] = field(default_factory=dict)
    subtracts_b_dec: bool = True


@functools.singledispatch
def form(dictionary: Dictionary) -> Form:
    """The class of SAELens that computes what the dictionary does; `form_of` asks for it. Raises
    SaemakeError where none is registered."""
    raise SaemakeError(
        f"nothing says what {type(dictionary).__name__} is in SAELens, so it is not exported;"
        " register it with @saemake.publishing.saelens.form.register"
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


@form.register(TopKDictionary)
@form.register(BatchTopKDictionary)
@form.register(MatryoshkaDictionary)
def _kept(dictionary: KeptDictionary) -> Form:
    """As it is at inference: by top-k, or as a JumpReLU whose latents have one threshold."""
    b_enc, b_dec = dictionary.biases
    parameters = {"b_enc": b_enc, "b_dec": b_dec}
    if dictionary.inference == "top_k":
        entries = {"k": dictionary.kept, "rescale_acts_by_decoder_norm": False}
        return Form("topk", parameters, entries)
    return Form(
        "jumprelu", {**parameters, "threshold": dictionary.threshold.repeat(dictionary.width)}
    )


def has_form(dictionary: type[Dictionary]) -> bool:
    """Whether a form is registered for that very class: a subclass may compute something else."""
    return dictionary in form.registry


def form_of(dictionary: Dictionary) -> Form:
    """The dictionary in SAELens; SaemakeError where no form is registered for its very class."""
    made: Form = form.registry.get(type(dictionary), form.registry[object])(dictionary)
    return made


def export(config: Config, name: SaeName) -> tuple[bytes, bytes]:
    """sae_weights.safetensors (W_enc [D, F], W_dec [F, D], biases, thresholds; all float32) and
    cfg.json of an SAE under results/. Raises SaemakeError where its files are none, or damaged."""
    folder, sweep = Path(name.folder), name.sweep
    files.checked_sum(folder, sae_recipe(config, name).hash)
    dictionary = files.load(
        folder, sweep.architecture, config.latents(sweep.width), torch.device("cpu")
    )
    trained = json.loads((folder / "config.json").read_text())
    dropped = files.read_provenance(folder).get("dropped_ids")
    text = config.texts[config.models[sweep.model].text]
    metadata = {
        # As SAELens's own loader of dictionary_learning's files says these.
        "model_name": trained["trainer"]["lm_name"].split("/")[-1],
        "hook_name": f"blocks.{sweep.layer}.hook_resid_post",
        "prepend_bos": True,
        # Ids, as SAELens takes them; a norm that is left out has no name there.
        **({"exclude_special_tokens": dropped} if dropped else {}),
        "context_size": trained["buffer"]["ctx_len"],
        "dataset_path": text.hub,
        "sae_lens_version": SAELENS,
        "sae_lens_training_version": None,
    }
    return weights(dictionary), cfg(dictionary, metadata)


def weights(dictionary: Dictionary) -> bytes:
    """The parameters as safetensors, without metadata, whose order is not the same each time."""
    parameters = {
        "W_enc": dictionary.encoder_weight.T,
        "W_dec": dictionary.decoder_rows,
        **form_of(dictionary).parameters,
    }
    return save({key: value.detach().contiguous() for key, value in parameters.items()})


def cfg(dictionary: Dictionary, metadata: dict[str, Any]) -> bytes:
    """cfg.json: the class and what it is made with."""
    found = form_of(dictionary)
    content = {
        "architecture": found.architecture,
        "d_in": dictionary.d_model,
        "d_sae": dictionary.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": found.subtracts_b_dec,
        # Biases and thresholds are those of raw activations.
        "normalize_activations": "none",
        "reshape_activations": "none",
        **found.entries,
        "metadata": metadata,
    }
    return (json.dumps(content, indent=1) + "\n").encode()
