"""Matching pursuit: dictionary and loss.

Shapes: B activations in a batch, R of them in a part, D the model's width, F latents, K rounds.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures import constraints, losses, products
from saemake.architectures.choosing import top_indices
from saemake.architectures.constraints import Constraint
from saemake.architectures.dictionary import Dictionary
from saemake.architectures.matching_pursuit import MatchingPursuit
from saemake.architectures.places import Masked, sum_of_rows
from saemake.architectures.trainer import Forward, Trainer


@torch.no_grad()
def pursue(
    x_BD: Tensor, rows_FD: Tensor, k: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Explain activations by k rows of unit norm, one after another: the row whose product with the
    rest is largest, times that product, is subtracted from the rest. The latents (int64) and their
    values (0 where no product is positive), [B, K] each, and the rest that is left [B, D]. The best
    row is looked for in `dtype`; the rest is as exact as `rows_FD`."""
    look = products.linear(rows_FD.to(dtype), None)
    done = []
    for rest_RD in x_BD.split(products.part_tokens(len(rows_FD), dtype)):
        latents, values = [], []
        for _ in range(k):
            latents_R = top_indices(look(rest_RD.to(dtype)), 1)[:, 0]
            chosen_RD = rows_FD[latents_R]
            values_R = (rest_RD * chosen_RD).sum(dim=1).relu()
            rest_RD = torch.addcmul(rest_RD, chosen_RD, values_R[:, None], value=-1)
            latents.append(latents_R)
            values.append(values_R)
        done.append((torch.stack(latents, 1), torch.stack(values, 1), rest_RD))
    latents_BK, values_BK, rest_BD = (torch.cat(each) for each in zip(*done, strict=True))
    return latents_BK, values_BK, rest_BD


def added_up(latents_BK: Tensor, values_BK: Tensor, width: int) -> Tensor:
    """The values of each latent, [B, F]. A latent that was taken in several rounds has their
    sum."""
    f_BF = values_BK.new_zeros(len(values_BK), width)
    for place in range(latents_BK.shape[1]):  # a round at a time, so that the order is fixed
        at = slice(place, place + 1)
        f_BF.scatter_add_(1, latents_BK[:, at], values_BK[:, at])
    return f_BF


class MatchingPursuitDictionary(Dictionary):
    """Parameters W_dec [F, D], whose rows encode too, and b_dec [D]. There is no encoder's bias."""

    d_model_dim = 1

    def __init__(self, d_model: int, width: int, k: int) -> None:
        super().__init__()
        self.d_model, self.width, self.k = d_model, width, k
        self.W_dec = nn.Parameter(torch.empty(width, d_model))
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @property
    def encoder_weight(self) -> Tensor:
        return self.W_dec

    @property
    def encoder_bias(self) -> Tensor:
        return self.b_dec.new_zeros(self.width)

    @property
    def decoder_weight(self) -> Tensor:
        return self.W_dec

    def encode(self, x: Tensor) -> Tensor:
        rows_BD = (x.float() - self.b_dec).view(-1, self.d_model)
        latents_BK, values_BK, _ = pursue(rows_BD, self.W_dec, self.k, self.W_dec.dtype)
        return added_up(latents_BK, values_BK, self.width).view(*x.shape[:-1], self.width)

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.W_dec + self.b_dec

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            self.b_dec.mul_(scale)


class MatchingPursuitTrainer(MatchingPursuit, Trainer):
    dictionary: MatchingPursuitDictionary

    @property
    def constraint(self) -> Constraint:
        """Rows keep unit norm: only then is what remains orthogonal to the row that was taken."""
        return constraints.OF_RECIPE[self.training.recipe]

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return MatchingPursuitDictionary(config["activation_dim"], config["dict_size"], config["k"])

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw rows uniformly and give them unit norm."""
        rows_FD = self.dictionary.W_dec
        rows_FD.uniform_(-1, 1, generator=self.generator)
        constraints.normalise_(rows_FD, 1, epsilon=torch.finfo(rows_FD.dtype).eps)

    def start(self, x_BD: Tensor, y_BD: Tensor) -> None:
        """Start the bias at the geometric median of the first batch."""
        self.dictionary.b_dec.data.copy_(losses.geometric_median(x_BD))

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        dictionary = self.dictionary
        rest_BD, latents_BK, values_BK = Pursuit.apply(
            dictionary.W_dec, dictionary.b_dec, x_BD.float(), dictionary.k, self.dtype
        )
        f_BF = added_up(latents_BK, values_BK, dictionary.width)
        places = Masked(f_BF != 0, self.dtype)
        self.count_fired(places.latents(), places)

        x_hat_BD = x_BD.float() - rest_BD
        l2 = losses.reconstruction(y_BD, x_hat_BD)
        return Forward(l2, {"l2": l2.detach()}, f_BF, places, x_hat_BD)

    def recipe_entries(self) -> dict[str, Any]:
        return {"k": int(self.sparsity_value)}


class Pursuit(torch.autograd.Function):
    """The rest that k rounds leave of x - bias, [B, D], with gradients of rows and bias through all
    rounds: through what each subtracts and through the values that depend on the rest before it.
    And the latents and values of `pursue`, without gradients.

    The backward pass goes back round by round. It adds up again what was subtracted, instead of
    keeping the rest of each round.
    """

    @staticmethod
    def forward(
        ctx: Any, rows_FD: Tensor, bias_D: Tensor, x_BD: Tensor, k: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        latents_BK, values_BK, rest_BD = pursue(x_BD - bias_D, rows_FD, k, dtype)
        ctx.save_for_backward(rows_FD, latents_BK, values_BK, rest_BD)
        ctx.mark_non_differentiable(latents_BK, values_BK)
        return rest_BD, latents_BK, values_BK

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows_FD, latents_BK, values_BK, rest_BD = ctx.saved_tensors
        rows_gradient_FD = torch.zeros_like(rows_FD)
        pulls = []
        for part in products.row_parts(latents_BK.shape, rows_FD):
            latents_RK, pull_RD = latents_BK[part], gradients[0][part]
            pull_RD, of_rows_RKD = _back(
                rows_FD, latents_RK, values_BK[part], rest_BD[part], pull_RD
            )
            rows_gradient_FD += sum_of_rows(
                of_rows_RKD.flatten(0, 1), latents_RK.flatten(), len(rows_FD)
            )
            pulls.append(pull_RD.sum(0))
        return rows_gradient_FD, -torch.stack(pulls).sum(0), None, None, None


def _back(
    rows_FD: Tensor, latents_RK: Tensor, values_RK: Tensor, rest_RD: Tensor, pull_RD: Tensor
) -> tuple[Tensor, Tensor]:
    """From the gradient of the rest after the last round: that of the rest before the first
    [R, D], and that of the row of each round [R, K, D]."""
    of_rows_RKD = rest_RD.new_empty(*latents_RK.shape, rest_RD.shape[1])
    for place in reversed(range(latents_RK.shape[1])):
        chosen_RD, values_R1 = rows_FD[latents_RK[:, place]], values_RK[:, place, None]
        before_RD = torch.addcmul(rest_RD, chosen_RD, values_R1)
        of_value_R1 = -(pull_RD * chosen_RD).sum(dim=1, keepdim=True)
        of_value_R1 = of_value_R1.masked_fill(values_R1 <= 0, 0)
        of_rows_RKD[:, place] = of_value_R1 * before_RD - values_R1 * pull_RD
        pull_RD = torch.addcmul(pull_RD, chosen_RD, of_value_R1)
        rest_RD = before_RD
    return pull_RD, of_rows_RKD
