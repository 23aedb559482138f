"""What is judged: anything that encodes activations and decodes latents."""

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from saemake.architectures.places import Listed, most_listed, starts_of
from saemake.architectures.products import part_tokens


class Codec(Protocol):
    """What an evaluation asks of an SAE or a baseline (see architectures.trainer.Dictionary).
    Decoding is f @ decoder_rows and a bias; `tokens_apart` says that a token's latents depend on no
    other's."""

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
    @property
    def tokens_apart(self) -> bool: ...
    def encode(self, x: Tensor) -> Tensor: ...
    def decode(self, f: Tensor) -> Tensor: ...


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What an evaluation found: its figures, and what it saw of each latent (values [F])."""

    figures: dict[str, float]
    latents: dict[str, Tensor]


def encoded(codec: Codec, x_ND: Tensor) -> Iterator[Tensor]:
    """The latents [R, F] of some activations after others: on a CPU of so few at once that they
    stay in the cache, where a token's depend on no other's."""
    apart = codec.tokens_apart and x_ND.device.type == "cpu"
    rows = part_tokens(codec.width, x_ND.dtype) if apart else max(len(x_ND), 1)
    for x_RD in x_ND.split(rows):
        yield codec.encode(x_RD)


def decoded(codec: Codec, f_RF: Tensor) -> Tensor:
    """What `codec.decode` gives of latents [R, F], as fast as can be; [R, D]."""
    most = most_listed(f_RF.numel(), f_RF.dtype, f_RF.device)
    # Counted first: many take memory, and on a GPU all are decoded without waiting for how many.
    if most == 0 or int(f_RF.count_nonzero()) > most:
        return codec.decode(f_RF)
    return _Part(codec, f_RF).x_hat_RD


class Coded:
    """What a codec makes of activations [N, D]: the latents that are not 0, token after token, M of
    them with their tokens, latents and values, and the reconstructions [N, D]."""

    def __init__(self, codec: Codec, x_ND: Tensor) -> None:
        parts, tokens, first = [], [], 0
        for f_RF in encoded(codec, x_ND):
            parts.append(part := _Part(codec, f_RF))
            tokens.append(part.tokens_M + first)
            first += len(f_RF)
        self.tokens_M = torch.cat(tokens)
        self.latents_M = torch.cat([part.latents_M for part in parts])
        self.values_M = torch.cat([part.values_M for part in parts])
        self.x_hat_ND = torch.cat([part.x_hat_RD for part in parts])


class _Part:
    """The same of the latents [R, F] of some. On a CPU, where few are not 0 (so few that a training
    step would list them), only their rows are added up."""

    def __init__(self, codec: Codec, f_RF: Tensor) -> None:
        tokens, width = f_RF.shape
        # Once, since on a CPU each look at all latents takes as long as much arithmetic.
        flat_M = f_RF.flatten().nonzero()[:, 0]
        self.tokens_M = flat_M.div(width, rounding_mode="floor")
        self.latents_M = flat_M - self.tokens_M * width
        self.values_M = f_RF.take(flat_M)
        if len(flat_M) > most_listed(f_RF.numel(), f_RF.dtype, f_RF.device):
            self.x_hat_RD = codec.decode(f_RF)
            return
        starts_R = starts_of(self.tokens_M.bincount(minlength=tokens))
        listed = Listed(self.latents_M, starts_R, width, f_RF.dtype)
        bias_D = codec.decode(f_RF.new_zeros(width))
        self.x_hat_RD = listed.decode(self.values_M, codec.decoder_rows) + bias_D
