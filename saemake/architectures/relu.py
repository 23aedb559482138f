"""What the ReLU architectures share: `standard`, `standard_new` and `p_anneal`.

Shapes: B activations in a batch, D the model's width, F latents, N dead latents.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures.dictionary import Dictionary, LayeredDictionary
from saemake.architectures.penalty_settings import PenaltySettings
from saemake.architectures.places import Places
from saemake.architectures.trainer import Trainer
from saemake.base.onednn import linear


class ReluDictionary(LayeredDictionary):
    """dictionary_learning's AutoEncoder. Parameters encoder.weight [F, D], encoder.bias [F],
    decoder.weight [D, F], bias [D]."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.d_model, self.width = d_model, width
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.add_layers()

    @property
    def output_bias(self) -> nn.Parameter:
        return self.bias

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(linear(self.shifted(x), self.encoder.weight, self.encoder.bias))

    def decode(self, f: Tensor) -> Tensor:
        return self.decoder(f) + self.bias

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            self.encoder.bias.mul_(scale)
            self.bias.mul_(scale)


class ReluTrainer(Trainer):
    """The dictionary, the initial weights and the reconstruction of the ReLU architectures."""

    settings: PenaltySettings
    dictionary: ReluDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return ReluDictionary(config["activation_dim"], config["dict_size"])

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw normal directions of norm 0.1, the same in encoder and decoder. The encoder's bias
        keeps torch's default for a linear layer, as in dictionary_learning; the decoder's is 0."""
        decoder_DF = self.dictionary.decoder.weight
        decoder_DF.normal_(generator=self.generator)
        decoder_DF.mul_(0.1 / decoder_DF.norm(dim=0, keepdim=True))
        self.dictionary.encoder.weight.copy_(decoder_DF.T)
        bound = decoder_DF.shape[0] ** -0.5
        self.dictionary.encoder.bias.uniform_(-bound, bound, generator=self.generator)

    def reconstruction(self, x_BD: Tensor, places: Places, f_P: Tensor) -> Tensor:
        """The batch's reconstruction [B, D] from the latents above 0, which count as fired."""
        self.count_fired(places.latents(), places)
        dictionary = self.dictionary
        x_hat_BD = places.decode(f_P, dictionary.decoder_rows, dictionary.decoder_copy)
        return x_hat_BD + self.base(x_BD)


def silent_latents(trainer: ReluTrainer, steps: int, batch_tokens: int) -> Tensor:
    """Latents (bool [F]) that have not fired for more than half of `steps` batches."""
    return trainer.tokens_since_fired_F > steps / 2 * batch_tokens


@torch.no_grad()
def resample(trainer: ReluTrainer, x_BD: Tensor, y_BD: Tensor, dead_F: Tensor) -> None:
    """Point dead latents (bool [F]) at tokens of the batch [B, D], at most one per token, and write
    its target. Tokens are drawn with odds in proportion to their reconstruction error. The new
    encoder rows have a fifth of the mean norm of the live latents' rows. Adam forgets the resampled
    latents.

    "Neuron Resampling" in https://transformer-circuits.pub/2023/monosemantic-features.
    """
    count = min(int(dead_F.sum()), len(x_BD))
    if count == 0:
        return
    dictionary = trainer.dictionary
    error_B = (y_BD - dictionary(x_BD)).float().norm(dim=-1)
    # The draw is on the CPU, where the generator is the same whatever the device.
    tokens_N = torch.multinomial(error_B.cpu(), count, generator=trainer.generator)
    tokens_N = tokens_N.to(x_BD.device)
    vectors_ND, targets_ND = x_BD.float()[tokens_N], y_BD.float()[tokens_N]
    alive_norm = dictionary.encoder.weight[~dead_F].norm(dim=-1).mean()
    latents_N = dead_F.nonzero().squeeze(1)[:count]
    dictionary.encoder.weight[latents_N] = vectors_ND * alive_norm * 0.2
    dictionary.decoder.weight[:, latents_N] = (targets_ND / targets_ND.norm(dim=-1, keepdim=True)).T
    dictionary.encoder.bias[latents_N] = 0.0
    trainer.optimizer.weights_changed()
    forget_moments(trainer, latents_N)


def forget_moments(trainer: ReluTrainer, latents_N: Tensor) -> None:
    """Set Adam's moments of some latents (indices [N]) to 0."""
    dictionary = trainer.dictionary
    for parameter in (dictionary.encoder.weight, dictionary.encoder.bias):
        for moment in trainer.moments(parameter):
            moment[latents_N] = 0.0
    for moment in trainer.moments(dictionary.decoder.weight):
        moment[:, latents_N] = 0.0
