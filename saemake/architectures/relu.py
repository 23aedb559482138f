"""What the ReLU architectures share: `standard`, `standard_new` and `p_anneal`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures import choosing, schedule
from saemake.architectures.encoding import Encoding
from saemake.architectures.penalties import PenaltySettings, ResamplingSettings
from saemake.architectures.places import Places
from saemake.architectures.trainer import Dictionary, Trainer, latents_together
from saemake.base.onednn import linear


class ReluDictionary(Dictionary):
    """dictionary_learning's AutoEncoder. Parameters encoder.weight [F, D], encoder.bias [F],
    decoder.weight [D, F], bias [D]."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.d_model, self.width = d_model, width
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.encoder = nn.Linear(d_model, width)
        self.decoder = nn.Linear(width, d_model, bias=False)
        self.decoder.weight = latents_together(d_model, width)

    @property
    def encoder_weight(self) -> Tensor:
        return self.encoder.weight

    @property
    def encoder_bias(self) -> Tensor:
        return self.encoder.bias

    @property
    def decoder_weight(self) -> Tensor:
        return self.decoder.weight

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(linear(x - self.bias, self.encoder.weight, self.encoder.bias))

    def decode(self, f: Tensor) -> Tensor:
        return self.decoder(f) + self.bias

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            self.encoder.bias.mul_(scale)
            self.bias.mul_(scale)


class ReluTrainer(Trainer):
    """An AutoEncoder whose sparsity is a penalty that warms up."""

    settings: PenaltySettings
    dictionary: ReluDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return ReluDictionary(config["activation_dim"], config["dict_size"])

    @torch.no_grad()
    def initialise(self) -> None:
        """Normal directions of norm 0.1, the same in encoder and decoder. The encoder's bias is
        torch's default for a linear layer, as the library leaves it; the other bias is 0."""
        decoder_DF = self.dictionary.decoder.weight
        decoder_DF.normal_(generator=self.generator)
        decoder_DF.mul_(0.1 / decoder_DF.norm(dim=0, keepdim=True))
        self.dictionary.encoder.weight.copy_(decoder_DF.T)
        bound = decoder_DF.shape[0] ** -0.5
        self.dictionary.encoder.bias.uniform_(-bound, bound, generator=self.generator)

    def reconstruct(self, x_BD: Tensor) -> tuple[Tensor, Places, Tensor]:
        """The active latents, where they are, and the reconstruction [B, D]; counts who fired."""
        dictionary = self.dictionary
        encoder = dictionary.encoder
        encoding = Encoding(x_BD, encoder.weight, encoder.bias, dictionary.bias, self.dtype)
        active, f_P = choosing.over(encoding, torch.zeros_like(encoder.bias))
        self.count_fired(active.latents(), active)
        return f_P, active, active.decode(f_P, dictionary.decoder_rows) + dictionary.bias

    def sparsity_scale(self, step: int) -> float:
        """How much of the penalty counts at that step."""
        return schedule.sparsity_scale(step, self.settings.sparsity_warmup_steps)


class ResamplingTrainer(ReluTrainer):
    """One that can replace its dead latents, as in
    https://transformer-circuits.pub/2023/monosemantic-features (Neuron Resampling)."""

    settings: ResamplingSettings

    @property
    def restart_steps(self) -> int | None:
        return self.settings.resample_steps

    def dead(self, batch_tokens: int) -> Tensor:
        """Latents (bool [F]) that have not fired for more than half of the interval."""
        assert self.settings.resample_steps is not None
        return self.tokens_since_fired_F > self.settings.resample_steps / 2 * batch_tokens

    @torch.no_grad()
    def resample(self, x_BD: Tensor) -> None:
        """Point dead latents at tokens of the batch, drawn with their reconstruction error as odds;
        at most as many as there are tokens. The encoder's rows get a fifth of the living's mean
        norm. Adam forgets them."""
        dead_F = self.dead(len(x_BD))
        count = min(int(dead_F.sum()), len(x_BD))
        if count == 0:
            return
        dictionary = self.dictionary
        error_B = (x_BD - dictionary.decode(dictionary.encode(x_BD))).float().norm(dim=-1)
        # On the CPU, whose generator is the same on every device.
        chosen = torch.multinomial(error_B.cpu(), count, generator=self.generator)
        vectors_ND = x_BD.float()[chosen.to(x_BD.device)]
        alive_norm = dictionary.encoder.weight[~dead_F].norm(dim=-1).mean()
        latents_N = dead_F.nonzero().squeeze(1)[:count]
        dictionary.encoder.weight[latents_N] = vectors_ND * alive_norm * 0.2
        dictionary.decoder.weight[:, latents_N] = (
            vectors_ND / vectors_ND.norm(dim=-1, keepdim=True)
        ).T
        dictionary.encoder.bias[latents_N] = 0.0
        self.forget(latents_N)

    def forget(self, latents_N: Tensor) -> None:
        """Clear Adam's moments of those latents."""
        dictionary = self.dictionary
        for parameter in (dictionary.encoder.weight, dictionary.encoder.bias):
            for moment in self.moments(parameter):
                moment[latents_N] = 0.0
        for moment in self.moments(dictionary.decoder.weight):
            moment[:, latents_N] = 0.0
