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


class Active:
    """Of latents [N, F] those that are not 0, token after token: M of them, with their tokens,
    latents and values."""

    def __init__(self, f_NF: Tensor) -> None:
        self.f_NF = f_NF
        # Once, since on a CPU each look at all latents takes as long as much arithmetic.
        flat_M = f_NF.flatten().nonzero()[:, 0]
        self.tokens_M = flat_M.div(f_NF.shape[1], rounding_mode="floor")
        self.latents_M = flat_M - self.tokens_M * f_NF.shape[1]
        self.values_M = f_NF.take(flat_M)

    def decoded(self, codec: Codec) -> Tensor:
        """What `codec.decode` gives of them all, [N, D]. On a CPU, where few are active (so few
        that a training step would list them), only their rows are added up."""
        tokens, width = self.f_NF.shape
        if len(self.values_M) > most_listed(tokens * width, self.f_NF.dtype, self.f_NF.device):
            return codec.decode(self.f_NF)
        starts_N = starts_of(self.tokens_M.bincount(minlength=tokens))
        listed = Listed(self.latents_M, starts_N, width, self.f_NF.dtype)
        bias_D = codec.decode(self.f_NF.new_zeros(width))
        return listed.decode(self.values_M, codec.decoder_rows) + bias_D


def decoded(codec: Codec, f_NF: Tensor) -> Tensor:
    """What `codec.decode` gives of latents [N, F], as fast as can be; [N, D]."""
    most = most_listed(f_NF.numel(), f_NF.dtype, f_NF.device)
    # Counted first: many take memory, and on a GPU all are decoded without waiting for how many.
    if most == 0 or int(f_NF.count_nonzero()) > most:
        return codec.decode(f_NF)
    return Active(f_NF).decoded(codec)
