"""What is judged: anything that encodes activations and decodes latents."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from saemake.architectures.places import Listed, most_listed, starts_of
from saemake.architectures.products import part_tokens


class Codec(Protocol):
    """What an evaluation asks of an SAE or a baseline (see architectures.trainer.Dictionary).
    Decoding is f @ decoder_rows and a bias; `tokens_apart` says that a token's latents depend on no
    other's, `negative_fires` that one below 0 counts as one that fires."""

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
    @property
    def negative_fires(self) -> bool: ...
    def encode(self, x: Tensor) -> Tensor: ...
    def listed(self, x_RD: Tensor) -> tuple[Tensor, Tensor] | None: ...
    def decode(self, f: Tensor) -> Tensor: ...


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What an evaluation found: its figures, and what it saw of each latent (values [F])."""

    figures: dict[str, float]
    latents: dict[str, Tensor]


def reconstructed(codec: Codec, x_ND: Tensor) -> Tensor:
    """What `codec` makes of activations; [N, D]."""
    return torch.cat([decoded(codec, codec.encode(x_RD)) for x_RD in _parts(codec, x_ND)])


def decoded(codec: Codec, f_RF: Tensor) -> Tensor:
    """What `codec.decode` gives of latents [R, F], as fast as can be; [R, D]."""
    most = most_listed(f_RF.numel(), f_RF.dtype, f_RF.device)
    # Counted first: many take memory, and on a GPU all are decoded without waiting for how many.
    if most == 0 or int(f_RF.count_nonzero()) > most:
        return codec.decode(f_RF)
    return _List(*_active(f_RF), f_RF.shape).decoded(codec)


class Coded:
    """What a codec makes of activations [N, D]: the latents that are not 0, token after token, M of
    them with their tokens, latents and values, and the reconstructions [N, D]."""

    def __init__(self, codec: Codec, x_ND: Tensor) -> None:
        parts, tokens, first = [], [], 0
        for x_RD in _parts(codec, x_ND):
            parts.append(part := _coded(codec, x_RD))
            tokens.append(part[0].tokens_M + first)
            first += len(x_RD)
        self.tokens_M = torch.cat(tokens)
        self.latents_M = torch.cat([listed.latents_M for listed, _ in parts])
        self.values_M = torch.cat([listed.values_M for listed, _ in parts])
        self.x_hat_ND = torch.cat([x_hat_RD for _, x_hat_RD in parts])


def _parts(codec: Codec, x_ND: Tensor) -> Sequence[Tensor]:
    """The activations, on a CPU so few at once that their latents stay in the cache, where a
    token's depend on no other's."""
    apart = codec.tokens_apart and x_ND.device.type == "cpu"
    return x_ND.split(part_tokens(codec.width, x_ND.dtype) if apart else max(len(x_ND), 1))


class _List:
    """The latents of R tokens that are not 0: where in the flattened matrix, and their values."""

    def __init__(self, flat_M: Tensor, values_M: Tensor, shape: Sequence[int]) -> None:
        self.flat_M, self.values_M, self.shape = flat_M, values_M, torch.Size(shape)
        self.tokens_M = flat_M.div(self.shape[1], rounding_mode="floor")
        self.latents_M = flat_M - self.tokens_M * self.shape[1]

    @property
    def pays(self) -> bool:
        """Whether adding up their rows is faster than decoding all: on a CPU, where they are so few
        that a training step would list them."""
        values_M = self.values_M
        return len(values_M) <= most_listed(self.shape.numel(), values_M.dtype, values_M.device)

    def decoded(self, codec: Codec) -> Tensor:
        """The sum of their rows, and the bias; [R, D]."""
        tokens, width = self.shape
        starts_R = starts_of(self.tokens_M.bincount(minlength=tokens))
        listed = Listed(self.latents_M, starts_R, width, self.values_M.dtype)
        bias_D = codec.decode(self.values_M.new_zeros(width))
        return listed.decode(self.values_M, codec.decoder_rows) + bias_D

    def whole(self) -> Tensor:
        """All latents, [R, F]."""
        zeros = self.values_M.new_zeros(self.shape.numel())
        return zeros.scatter_(0, self.flat_M, self.values_M).view(self.shape)


def _coded(codec: Codec, x_RD: Tensor) -> tuple[_List, Tensor]:
    """The latents that are not 0 and the reconstructions [R, D]."""
    found = codec.listed(x_RD)
    if found is None:
        f_RF = codec.encode(x_RD)
        listed = _List(*_active(f_RF), f_RF.shape)
        return listed, listed.decoded(codec) if listed.pays else codec.decode(f_RF)
    listed = _List(*_not_zero(*found), (len(x_RD), codec.width))
    return listed, listed.decoded(codec) if listed.pays else codec.decode(listed.whole())


def _active(f_RF: Tensor) -> tuple[Tensor, Tensor]:
    # Once, since on a CPU each look at all latents takes as long as much arithmetic.
    flat_M = f_RF.flatten().nonzero()[:, 0]
    return flat_M, f_RF.take(flat_M)


def _not_zero(flat_P: Tensor, values_P: Tensor) -> tuple[Tensor, Tensor]:
    if values_P.all():
        return flat_P, values_P
    where_M = values_P.nonzero()[:, 0]
    return flat_P[where_M], values_P[where_M]
