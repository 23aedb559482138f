"""Gated: dictionary and loss.

Shapes: B activations in a batch, D the model's width, F latents, P places (see places.py).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures import constraints, losses, schedule
from saemake.architectures.choosing import over
from saemake.architectures.dictionary import Dictionary, latents_together
from saemake.architectures.encoding import Encoding, by_encoder
from saemake.architectures.gated import Gated
from saemake.architectures.penalty_settings import PenaltySettings
from saemake.architectures.places import Places, Positive
from saemake.architectures.trainer import Forward, Trainer
from saemake.base.onednn import linear


class GatedDictionary(Dictionary):
    """Parameters encoder.weight [F, D], r_mag, gate_bias and mag_bias [F], decoder.weight [D, F],
    decoder_bias [D]."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.d_model, self.width = d_model, width
        self.decoder_bias = nn.Parameter(torch.zeros(d_model))
        self.encoder = nn.Linear(d_model, width, bias=False)
        self.r_mag = nn.Parameter(torch.zeros(width))
        self.gate_bias = nn.Parameter(torch.zeros(width))
        self.mag_bias = nn.Parameter(torch.zeros(width))
        self.decoder = nn.Linear(width, d_model, bias=False)
        self.decoder.weight = latents_together(d_model, width)

    @property
    def encoder_weight(self) -> Tensor:
        return self.encoder.weight

    @property
    def encoder_bias(self) -> Tensor:
        return self.mag_bias

    @property
    def decoder_weight(self) -> Tensor:
        return self.decoder.weight

    @property
    def output_bias(self) -> nn.Parameter:
        return self.decoder_bias

    def encode(self, x: Tensor) -> Tensor:
        return self.gate_and_magnitude(x)[1]

    def gate_and_magnitude(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gate's activations after a ReLU (before its step function) and the latents; [..., F]
        each."""
        encoded = linear(self.shifted(x), self.encoder.weight, None)
        gate = encoded + self.gate_bias
        magnitude = torch.relu(self.r_mag.exp() * encoded + self.mag_bias)
        return torch.relu(gate), (gate > 0) * magnitude

    def decode(self, f: Tensor) -> Tensor:
        return self.decoder(f) + self.decoder_bias

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            for bias in (self.decoder_bias, self.mag_bias, self.gate_bias):
                bias.mul_(scale)


class Gates(torch.autograd.Function):
    """The gate's activations and the latents [B, F], the sum of the gate's activations [F], and
    which latents are above 0 (bool [F])."""

    @staticmethod
    def forward(
        ctx: Any,
        weight_FD: Tensor,
        bias_F: None,
        shift_D: Tensor,
        gate_bias_F: Tensor,
        r_mag_F: Tensor,
        mag_bias_F: Tensor,
        encoding: Encoding,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from saemake.kernels import gates  # it needs Triton

        encoded_BF, vectors = encoding.whole(), (gate_bias_F, r_mag_F.exp(), mag_bias_F)
        gate_BF, f_BF, fired_F, sums_F = gates.gates(encoded_BF, *vectors)
        ctx.save_for_backward(weight_FD, encoding.x_BD, encoded_BF, *vectors)
        ctx.mark_non_differentiable(fired_F)
        return gate_BF, f_BF, sums_F, fired_F

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from saemake.kernels import gates  # it needs Triton

        gate_BF, f_BF, sums_F, _ = gradients
        weight_FD, x_BD, encoded_BF, *vectors = ctx.saved_tensors
        gradient_BF, sum_F, gate_bias_F, mag_bias_F, r_mag_F = gates.gates_backward(
            encoded_BF,
            *vectors,
            gate_gradient_BF=gate_BF,
            latents_gradient_BF=f_BF,
            sum_gradient_F=sums_F,
        )
        encoder = by_encoder(ctx, weight_FD, x_BD, gradient_BF, sum_F)
        return *encoder, gate_bias_F, r_mag_F, mag_bias_F, None


class GatedTrainer(Gated, Trainer):
    replayed = True

    constraint = constraints.UNIT_NORM

    settings: PenaltySettings
    dictionary: GatedDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return GatedDictionary(config["activation_dim"], config["dict_size"])

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw normal directions of unit norm, the same in encoder and decoder. All else is 0."""
        decoder_DF = self.dictionary.decoder.weight
        decoder_DF.normal_(generator=self.generator)
        constraints.normalise_(decoder_DF, 0, epsilon=0.0)
        self.dictionary.encoder.weight.copy_(decoder_DF.T)

    def start(self, x_BD: Tensor, y_BD: Tensor) -> None:
        super().start(x_BD, y_BD)
        if self.is_transcoder:  # the gate starts centred too
            self.dictionary.gate_bias.data.copy_(self.dictionary.mag_bias)

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        """Reconstruction loss, l1 of the gate's activations, and the reconstruction loss of the
        gate's activations by themselves (section 3.2 of the paper)."""
        dictionary = self.dictionary
        base, rows_FD = self.base(x_BD), dictionary.decoder_rows
        encoding = Encoding(
            x_BD,
            dictionary.encoder.weight,
            None,
            dictionary.shift,
            self.dtype,
            dictionary.encoder_copy,
        )
        if encoding.by_kernels:
            places, gate_P, f_P = self.gates_by_kernel(encoding)
        else:
            places, gate_P, f_P = self.gates(encoding)
        x_hat_BD = places.decode(f_P, rows_FD, dictionary.decoder_copy) + base
        # The gate's own reconstruction. It does not train the decoder.
        x_hat_gate_BD = places.decode(gate_P, rows_FD.detach(), dictionary.decoder_copy)
        x_hat_gate_BD = x_hat_gate_BD + base.detach()
        self.count_fired(places.fired(f_P), places)
        error = self.error(y_BD, x_hat_BD)
        sparsity = losses.l1(gate_P, places)
        auxiliary = losses.reconstruction(y_BD, x_hat_gate_BD)
        scale = self.now["sparsity_scale"]
        loss = error + self.sparsity_value * sparsity * scale + auxiliary
        parts = {
            self.error_name: error.detach(),
            "sparsity": sparsity.detach(),
            "gate_l2": auxiliary.detach(),
        }
        return Forward(loss, parts, f_P, places, x_hat_BD)

    def gates(self, encoding: Encoding) -> tuple[Places, Tensor, Tensor]:
        """The places where the gate is open, and the gate's activations and the latents there."""
        dictionary = self.dictionary
        places, encoded_P = over(encoding, -dictionary.gate_bias.detach())
        gate_P = places.only((encoded_P + places.of_latents(dictionary.gate_bias)).relu())
        scaled_P = encoded_P * places.of_latents(dictionary.r_mag.exp())
        f_P = (gate_P > 0) * (scaled_P + places.of_latents(dictionary.mag_bias)).relu()
        return places, gate_P, f_P

    def gates_by_kernel(self, encoding: Encoding) -> tuple[Places, Tensor, Tensor]:
        """The same by a kernel."""
        dictionary = self.dictionary
        gate_BF, f_BF, sums_F, fired_F = Gates.apply(
            encoding.weight_FD,
            None,
            encoding.shift_D,
            dictionary.gate_bias,
            dictionary.r_mag,
            dictionary.mag_bias,
            encoding,
        )
        places = Positive(gate_BF, sums_F=sums_F, fired_F=fired_F)
        return places, gate_BF, f_BF

    def schedule(self, step: int) -> dict[str, float]:
        warmup = self.settings.sparsity_warmup_steps
        return {"sparsity_scale": schedule.sparsity_scale(step, warmup)}

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "l1_penalty": self.sparsity_value,
            "sparsity_warmup_steps": self.settings.sparsity_warmup_steps,
        }
