"""A dictionary as a JumpReLU whose latents have thresholds of their own: the form in which SAELens
and circuit-tracer have transcoders. An architecture with its own dictionary class registers with
`jump_relu_form`.

Shapes: D the model's width, F latents.
"""

import functools
from dataclasses import dataclass

from torch import Tensor

from saemake.architectures.batch_top_k.trainer import BatchTopKDictionary
from saemake.architectures.dictionary import Dictionary
from saemake.architectures.gated.trainer import GatedDictionary
from saemake.architectures.jump_relu.trainer import JumpReluDictionary
from saemake.architectures.matryoshka_batch_top_k.trainer import MatryoshkaDictionary
from saemake.architectures.relu import ReluDictionary
from saemake.architectures.top_k.trainer import TopKDictionary
from saemake.architectures.top_k_family import KeptDictionary
from saemake.base.errors import SaemakeError


@dataclass(frozen=True)
class JumpReluForm:
    """The latents are p where p > threshold, else 0, with p = x @ encoder_FD.T + bias_F; all
    float32. Thresholds are at least 0; without any (None) they are 0, a ReLU."""

    encoder_FD: Tensor
    bias_F: Tensor
    threshold_F: Tensor | None = None


@functools.singledispatch
def jump_relu_form(dictionary: Dictionary) -> JumpReluForm:
    """The form that computes the same as the dictionary. Callers use `jump_relu_form_of`. Raises
    SaemakeError if none is registered for the class."""
    raise SaemakeError(
        f"a transcoder that is a {type(dictionary).__name__} has no form in SAELens or"
        " circuit-tracer, whose transcoders are ReLUs and JumpReLUs; register one with"
        " @saemake.publishing.jump_relu_form.jump_relu_form.register"
    )


@jump_relu_form.register
def _relu(dictionary: ReluDictionary) -> JumpReluForm:
    return JumpReluForm(dictionary.encoder_weight, dictionary.encoder_bias)


@jump_relu_form.register
def _jump_relu(dictionary: JumpReluDictionary) -> JumpReluForm:
    threshold_F = dictionary.threshold.clamp(min=0)
    return JumpReluForm(dictionary.encoder_weight, dictionary.b_enc, threshold_F)


@jump_relu_form.register
def _gated(dictionary: GatedDictionary) -> JumpReluForm:
    """Gate and magnitude share their directions, so an open gate is a magnitude above a threshold
    (appendix of https://arxiv.org/abs/2404.16014)."""
    scale_F = dictionary.r_mag.exp()
    threshold_F = dictionary.mag_bias - scale_F * dictionary.gate_bias
    return JumpReluForm(
        dictionary.encoder_weight * scale_F[:, None], dictionary.mag_bias, threshold_F.clamp(min=0)
    )


@jump_relu_form.register(TopKDictionary)
@jump_relu_form.register(BatchTopKDictionary)
@jump_relu_form.register(MatryoshkaDictionary)
def _kept(dictionary: KeptDictionary) -> JumpReluForm:
    """Its threshold inference: all latents share one threshold."""
    threshold_F = dictionary.threshold.clamp(min=0).repeat(dictionary.width)
    return JumpReluForm(dictionary.encoder_weight, dictionary.encoder_bias, threshold_F)


def jump_relu_form_of(dictionary: Dictionary) -> JumpReluForm:
    """The dictionary's form, of one that keeps the largest latents that of its threshold inference.
    Raises SaemakeError if none is registered for exactly its class: a subclass may compute
    something else."""
    registry = jump_relu_form.registry
    form: JumpReluForm = registry.get(type(dictionary), registry[object])(dictionary)
    return form
