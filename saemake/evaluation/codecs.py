"""The things that evaluations judge: anything that encodes activations and decodes latents.

Shapes: N positions of a batch, R positions of a part, D the model's width, F latents, M latents
that are not 0.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from saemake.architectures.places import Listed, most_listed, starts_of
from saemake.architectures.products import part_tokens
from saemake.base.errors import SaemakeError


class Codec(Protocol):
    """The interface of SAEs, transcoders and baselines for evaluations (see
    architectures.dictionary.Dictionary). Decoding is f @ decoder_rows plus a bias, and a skip
    connection adds `skipped`. `tokens_apart`: a token's latents do not depend on other tokens.
    `negative_fires`: a negative latent counts as firing. `transcodes`: it reads one site and
    reconstructs another."""

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
    @property
    def transcodes(self) -> bool: ...
    def encode(self, x: Tensor) -> Tensor: ...
    def listed(self, x_RD: Tensor) -> tuple[Tensor, Tensor] | None: ...
    def decode(self, f: Tensor) -> Tensor: ...
    def skipped(self, x: Tensor) -> Tensor | None: ...


def check_lm_width(name: str, codec: Codec, lm_name: str, d_model: int) -> None:
    """Raise SaemakeError where a codec is not of activations of the LM's width."""
    if codec.d_model != d_model:
        raise SaemakeError(
            f"{name}: of activations of width {codec.d_model}; the model {lm_name} has {d_model}"
        )


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The result of an evaluation: its figures, and its values per latent, [F] each."""

    figures: dict[str, float]
    latents: dict[str, Tensor]


def reconstructed(codec: Codec, x_ND: Tensor) -> Tensor:
    """The reconstructions [N, D] from activations [N, D]."""
    parts = _parts(codec, x_ND)
    return torch.cat([completed(codec, x_RD, decoded(codec, codec.encode(x_RD))) for x_RD in parts])


def completed(codec: Codec, x_RD: Tensor, decoded_RD: Tensor) -> Tensor:
    """The reconstructions [R, D] from activations and what their latents decode to."""
    skipped_RD = codec.skipped(x_RD)
    return decoded_RD if skipped_RD is None else decoded_RD + skipped_RD


def decoded(codec: Codec, f_RF: Tensor) -> Tensor:
    """The same as `codec.decode` of latents [R, F], but faster if few are active; [R, D]."""
    most = most_listed(f_RF.numel(), f_RF.dtype, f_RF.device)
    # Active latents are counted before they are listed, since a long list takes memory. On a GPU
    # `most` is 0: all latents are decoded, without waiting for their count.
    if most == 0 or int(f_RF.count_nonzero()) > most:
        return codec.decode(f_RF)
    return _List(*_active(f_RF), f_RF.shape).decoded(codec)


class Coded:
    """Encoded activations [N, D]: the M latents that are not 0, ordered by token (their tokens,
    latents and values, [M] each), and the reconstructions `x_hat_ND`."""

    def __init__(self, codec: Codec, x_ND: Tensor) -> None:
        parts, tokens, first = [], [], 0
        for x_RD in _parts(codec, x_ND):
            listed, decoded_RD = _coded(codec, x_RD)
            parts.append((listed, completed(codec, x_RD, decoded_RD)))
            tokens.append(listed.tokens_M + first)
            first += len(x_RD)
        self.tokens_M = torch.cat(tokens)
        self.latents_M = torch.cat([listed.latents_M for listed, _ in parts])
        self.values_M = torch.cat([listed.values_M for listed, _ in parts])
        self.x_hat_ND = torch.cat([x_hat_RD for _, x_hat_RD in parts])


def _parts(codec: Codec, x_ND: Tensor) -> Sequence[Tensor]:
    """The activations in parts. If tokens do not depend on each other, a CPU gets parts so small
    that their latents stay in the cache; otherwise there is one part."""
    apart = codec.tokens_apart and x_ND.device.type == "cpu"
    return x_ND.split(part_tokens(codec.width, x_ND.dtype) if apart else max(len(x_ND), 1))


class _List:
    """The latents of R tokens that are not 0: their indices in the flattened [R, F], and their
    values, [M] each."""

    def __init__(self, flat_M: Tensor, values_M: Tensor, shape: Sequence[int]) -> None:
        self.flat_M, self.values_M, self.shape = flat_M, values_M, torch.Size(shape)
        self.tokens_M = flat_M.div(self.shape[1], rounding_mode="floor")
        self.latents_M = flat_M - self.tokens_M * self.shape[1]

    @property
    def pays(self) -> bool:
        """Whether summing their decoder rows is faster than decoding all latents: on a CPU, if they
        are so few that a training step would list them."""
        values_M = self.values_M
        return len(values_M) <= most_listed(self.shape.numel(), values_M.dtype, values_M.device)

    def decoded(self, codec: Codec) -> Tensor:
        """The sum of their decoder rows, plus the bias; [R, D]."""
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
    """The latents that are not 0, and what they decode to [R, D]."""
    flat_and_values = codec.listed(x_RD)
    if flat_and_values is None:
        f_RF = codec.encode(x_RD)
        listed = _List(*_active(f_RF), f_RF.shape)
        return listed, listed.decoded(codec) if listed.pays else codec.decode(f_RF)
    listed = _List(*_not_zero(*flat_and_values), (len(x_RD), codec.width))
    return listed, listed.decoded(codec) if listed.pays else codec.decode(listed.whole())


def _active(f_RF: Tensor) -> tuple[Tensor, Tensor]:
    # A single search: on a CPU reading all latents takes as long as much arithmetic.
    flat_M = f_RF.flatten().nonzero()[:, 0]
    return flat_M, f_RF.take(flat_M)


def _not_zero(flat_P: Tensor, values_P: Tensor) -> tuple[Tensor, Tensor]:
    if values_P.all():
        return flat_P, values_P
    where_M = values_P.nonzero()[:, 0]
    return flat_P[where_M], values_P[where_M]
