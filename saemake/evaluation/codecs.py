"""What is judged: anything that encodes activations and decodes latents."""

import dataclasses
from typing import Protocol

from torch import Tensor

from saemake.architectures.places import Listed, most_listed, starts_of


class Codec(Protocol):
    """What an evaluation asks of an SAE or a baseline (see architectures.trainer.Dictionary).
    Decoding is f @ decoder_rows and a bias."""

    @property
    def d_model(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def encoder_weight(self) -> Tensor: ...
    @property
    def encoder_bias(self) -> Tensor: ...
    @property
    def decoder_rows(self) -> Tensor: ...
    def encode(self, x: Tensor) -> Tensor: ...
    def decode(self, f: Tensor) -> Tensor: ...


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What an evaluation found: its figures, and what it saw of each latent (values [F])."""

    figures: dict[str, float]
    latents: dict[str, Tensor]


def decoded(codec: Codec, f_NF: Tensor) -> Tensor:
    """What `codec.decode` gives, [N, D]. On a CPU, where few latents are active (so few that a
    training step would list them), only their rows are added up."""
    most = most_listed(f_NF.numel(), f_NF.dtype, f_NF.device)
    if most == 0:
        return codec.decode(f_NF)
    active_NF = f_NF != 0
    if int(active_NF.sum()) > most:
        return codec.decode(f_NF)
    tokens_M, latents_M = active_NF.nonzero(as_tuple=True)
    starts_N = starts_of(tokens_M.bincount(minlength=len(f_NF)))
    listed = Listed(latents_M, starts_N, codec.width, f_NF.dtype)
    bias_D = codec.decode(f_NF.new_zeros(codec.width))
    return listed.decode(f_NF[tokens_M, latents_M], codec.decoder_rows) + bias_D
