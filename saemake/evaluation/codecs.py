"""What is judged: anything that encodes activations and decodes latents."""

import dataclasses
from typing import Protocol

from torch import Tensor


class Codec(Protocol):
    """What an evaluation asks of an SAE or a baseline (see architectures.trainer.Dictionary)."""

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
