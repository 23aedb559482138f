"""The ReLU SAE of Anthropic's April 2024 update: decoder norms are free, the penalty is weighted by
them (https://transformer-circuits.pub/2024/april-update). "Standard" in the published suite.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from saemake.architectures import losses, register
from saemake.architectures.base import Architecture, Dictionary, Forward, Settings
from saemake.sections import Number, Whole
from saemake.training import schedule


class StandardNewSettings(Settings):
    sweep: list[Annotated[Number, Field(gt=0)]] = Field(min_length=1)
    sparsity_warmup_steps: Whole

    def steps_needed(self) -> dict[str, int]:
        return {"sparsity_warmup_steps": self.sparsity_warmup_steps}


class ReluDictionary(Dictionary):
    """Parameters encoder.weight [F, D], encoder.bias [F], decoder.weight [D, F], bias [D]."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.d_model, self.width = d_model, width
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.encoder = nn.Linear(d_model, width)
        self.decoder = nn.Linear(width, d_model, bias=False)

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(self.encoder(x - self.bias))

    def decode(self, f: Tensor) -> Tensor:
        return self.decoder(f) + self.bias

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            self.encoder.bias.mul_(scale)
            self.bias.mul_(scale)


@register
class StandardNew(Architecture):
    name = "standard_new"
    version = 1
    sparsity = "penalty"
    trainer_class = "StandardTrainerAprilUpdate"
    dict_class = "AutoEncoder"
    Settings = StandardNewSettings

    settings: StandardNewSettings
    dictionary: ReluDictionary

    def __init__(self, *, sparsity: float, **arguments: Any) -> None:
        self.penalty = sparsity
        super().__init__(sparsity=sparsity, **arguments)

    @classmethod
    def make_dictionary(cls, d_model: int, width: int, sparsity: float) -> Dictionary:
        return ReluDictionary(d_model, width)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Normal directions of norm 0.1, the same in encoder and decoder. The encoder's bias is
        torch's default for a linear layer, as the library leaves it; the other bias is 0."""
        decoder_DF = self.dictionary.decoder.weight
        decoder_DF.normal_(generator=generator)
        decoder_DF.mul_(0.1 / decoder_DF.norm(dim=0, keepdim=True))
        self.dictionary.encoder.weight.copy_(decoder_DF.T)
        bound = decoder_DF.shape[0] ** -0.5
        self.dictionary.encoder.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, x_BD: Tensor, step: int) -> Forward:
        f_BF = self.dictionary.encode(x_BD)
        x_hat_BD = self.dictionary.decode(f_BF)
        l2 = losses.reconstruction(x_BD, x_hat_BD)
        sparsity = losses.decoder_weighted_l1(f_BF, self.dictionary.decoder.weight)
        scale = schedule.sparsity_scale(step, self.settings.sparsity_warmup_steps)
        loss = l2 + self.penalty * scale * sparsity
        return Forward(loss, {"l2": l2.detach(), "sparsity": sparsity.detach()}, f_BF, x_hat_BD)

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "l1_penalty": self.penalty,
            "sparsity_warmup_steps": self.settings.sparsity_warmup_steps,
        }
