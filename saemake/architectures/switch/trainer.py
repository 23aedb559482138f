"""Switch SAE: dictionary and loss.

Shapes: B activations in a batch, R tokens, D the model's width, F latents, E experts, G latents of
one expert, S tokens of one expert, K kept latents of a token, P places (see places.py).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from saemake.architectures import constraints, losses
from saemake.architectures.choosing import in_all, top_indices, top_positive_of_each
from saemake.architectures.constraints import Constraint
from saemake.architectures.dictionary import Dictionary
from saemake.architectures.encoding import Encoding
from saemake.architectures.places import Places
from saemake.architectures.switch import Switch, SwitchSettings
from saemake.architectures.trainer import Forward, Trainer
from saemake.base.onednn import linear


class SwitchDictionary(Dictionary):
    """switch_sae's SwitchAutoEncoder. Parameters encoder.weight [F, D], router.weight [E, D],
    decoder [F, D], b_dec and b_router [D]. The first F/E latents are the first expert's, and so on;
    if E does not divide F, the first experts have one more. Encoders have no bias."""

    d_model_dim = 1

    def __init__(self, d_model: int, width: int, k: int, experts: int) -> None:
        super().__init__()
        self.d_model, self.width, self.k = d_model, width, k
        self.encoder = nn.Linear(d_model, width, bias=False)
        self.router = nn.Linear(d_model, experts, bias=False)
        self.decoder = nn.Parameter(torch.empty(width, d_model))
        self.b_dec = nn.Parameter(torch.zeros(d_model))
        self.b_router = nn.Parameter(torch.zeros(d_model))
        # The number of latents of each expert.
        self.sizes = [len(part) for part in torch.arange(width).tensor_split(experts)]

    @property
    def encoder_weight(self) -> Tensor:
        return self.encoder.weight

    @property
    def encoder_bias(self) -> Tensor:
        return self.b_dec.new_zeros(self.width)

    @property
    def decoder_weight(self) -> Tensor:
        return self.decoder

    def route(self, x: Tensor) -> Tensor:
        """The router's probability of each expert, [..., E]; float32."""
        return functional.linear(x.float() - self.b_router, self.router.weight).softmax(dim=-1)

    def encode(self, x: Tensor) -> Tensor:
        x_RD = x.reshape(-1, self.d_model)
        latents_RK, values_RK = self._kept(x_RD)
        f_RF = values_RK.new_zeros(len(x_RD), self.width).scatter(1, latents_RK, values_RK)
        return f_RF.view(*x.shape[:-1], self.width)

    def listed(self, x_RD: Tensor) -> tuple[Tensor, Tensor] | None:
        latents_RK, values_RK = self._kept(x_RD)
        return in_all(latents_RK, self.width), values_RK.flatten()

    def _kept(self, x_RD: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest latents of each token's expert, and their values times the router's
        probability, which may be 0; [R, K] each."""
        groups, chances_R = Groups.of(self.route(x_RD))
        x_RD = groups.sort(x_RD - self.b_dec)
        kept = [
            self._kept_by(x_SD, weight_GD, first)
            for x_SD, weight_GD, first in groups.of_used(x_RD, self.encoder.weight, self.sizes)
        ]
        if not kept:
            return x_RD.new_zeros(0, self.k, dtype=torch.long), x_RD.new_zeros(0, self.k)
        latents_RK, values_RK = (torch.cat(each) for each in zip(*kept, strict=True))
        return groups.unsort(latents_RK), groups.unsort(values_RK) * chances_R[:, None]

    def _kept_by(self, x_SD: Tensor, weight_GD: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """The same of one expert, whose first latent is `first`, without the router."""
        z_SG = torch.relu(linear(x_SD, weight_GD, None))
        latents_SK = top_indices(z_SG.detach(), self.k)
        return latents_SK + first, z_SG.gather(1, latents_SK)

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.decoder + self.b_dec

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            for bias in (self.b_dec, self.b_router):
                bias.mul_(scale)
            # The router sees larger activations, and must choose as before.
            self.router.weight.div_(scale)


class Groups:
    """The tokens of a batch, grouped by expert: `order_B` sorts them, and `counts` has the number
    of tokens of each expert. Waits for the device."""

    def __init__(self, expert_B: Tensor, experts: int) -> None:
        # Stable, so that sums have the same order each time.
        self.order_B = expert_B.argsort(stable=True)
        self.place_B = self.order_B.argsort()
        self.counts: list[int] = expert_B.bincount(minlength=experts).tolist()

    @classmethod
    def of(cls, chances_BE: Tensor) -> tuple["Groups", Tensor]:
        """The groups by the most probable expert, and its probability for each token [B]."""
        chances_B, expert_B = chances_BE.max(dim=1)
        return cls(expert_B, chances_BE.shape[1]), chances_B

    def sort(self, rows: Tensor) -> Tensor:
        """The rows of tokens, with those of an expert adjacent."""
        return rows.index_select(0, self.order_B)

    def unsort(self, rows: Tensor) -> Tensor:
        """Such rows in the order of the tokens."""
        return rows.index_select(0, self.place_B)

    def of_used(
        self, sorted_BD: Tensor, weight_FD: Tensor, sizes: Sequence[int]
    ) -> list[tuple[Tensor, Tensor, int]]:
        """Of each expert with tokens: its tokens [S, D], its weight [G, D], its first latent."""
        firsts = [sum(sizes[:expert]) for expert in range(len(sizes))]
        parts = zip(sorted_BD.split(self.counts), weight_FD.split(sizes), firsts, strict=True)
        return [part for part in parts if len(part[0])]


class RoutedPlaces(Places):
    """Places of tokens that are grouped by expert. Values at them are a vector: those of the first
    expert's places, then of the second's."""

    def __init__(
        self, groups: Groups, sizes: Sequence[int], parts: Mapping[int, tuple[Places, torch.Size]]
    ) -> None:
        """`sizes` are the latents of each expert. `parts` has the places of each expert with
        tokens, and the shape of values at these places."""
        self.groups, self.sizes, self.parts = groups, list(sizes), dict(parts)
        self.tokens, self.width = len(groups.order_B), sum(sizes)

    def _of_experts(self, values_P: Tensor) -> dict[int, Tensor]:
        """The values of each expert with tokens, as its own places take them."""
        shapes = [shape for _, shape in self.parts.values()]
        values = values_P.split([shape.numel() for shape in shapes])
        return {
            expert: value.view(shape)
            for expert, value, shape in zip(self.parts, values, shapes, strict=True)
        }

    def _joined(self, of_expert: Callable[[int, Places], Tensor]) -> Tensor:
        """Results at places of all experts, as a vector."""
        found = [
            of_expert(expert, places).expand(shape).flatten()
            for expert, (places, shape) in self.parts.items()
        ]
        return torch.cat(found)

    def _of_latents(self, of_expert: Callable[[int, Places], Tensor]) -> Tensor:
        """Results [G, ...] of all experts, one below the other. An expert without tokens has 0."""
        found = {expert: of_expert(expert, places) for expert, (places, _) in self.parts.items()}
        like = next(iter(found.values()))
        return torch.cat(
            [
                found[expert] if expert in found else like.new_zeros(size, *like.shape[1:])
                for expert, size in enumerate(self.sizes)
            ]
        )

    def _of_tokens(self, of_expert: Callable[[int, Places], Tensor]) -> Tensor:
        """Results [S, ...] of all experts, in the order of the tokens."""
        found = [of_expert(expert, places) for expert, (places, _) in self.parts.items()]
        return self.groups.unsort(torch.cat(found))

    def only(self, values_P: Tensor) -> Tensor:
        values = self._of_experts(values_P)
        return self._joined(lambda expert, places: places.only(values[expert]))

    def count(self, flags_P: Tensor | None = None) -> Tensor:
        flags = {} if flags_P is None else self._of_experts(flags_P)
        return self._of_latents(lambda expert, places: places.count(flags.get(expert)))

    def of_latents(self, each_F: Tensor) -> Tensor:
        each = each_F.split(self.sizes)
        return self._joined(lambda expert, places: places.of_latents(each[expert]))

    def of_tokens(self, each_B: Tensor) -> Tensor:
        each = self.groups.sort(each_B).split(self.groups.counts)
        return self._joined(lambda expert, places: places.of_tokens(each[expert]))

    def by_latent(self, values_P: Tensor) -> Tensor:
        values = self._of_experts(values_P)
        return self._of_latents(lambda expert, places: places.by_latent(values[expert]))

    def by_token(self, values_P: Tensor) -> Tensor:
        values = self._of_experts(values_P)
        return self._of_tokens(lambda expert, places: places.by_token(values[expert]))

    def least_by_token(self, values_P: Tensor) -> Tensor:
        values = self._of_experts(values_P)
        return self._of_tokens(lambda expert, places: places.least_by_token(values[expert]))

    def latents(self) -> Tensor:
        return self._of_latents(lambda _, places: places.latents())

    def decode(self, values_P: Tensor, rows_FD: Tensor, copy_FD: Tensor | None = None) -> Tensor:
        values, rows = self._of_experts(values_P), rows_FD.split(self.sizes)
        copies = rows if copy_FD is None else copy_FD.split(self.sizes)
        return self._of_tokens(
            lambda expert, places: places.decode(
                values[expert], rows[expert], None if copy_FD is None else copies[expert]
            )
        )

    def outer(self, values_P: Tensor, rows_BD: Tensor) -> Tensor:
        values = self._of_experts(values_P)
        rows = self.groups.sort(rows_BD).split(self.groups.counts)
        return self._of_latents(lambda expert, places: places.outer(values[expert], rows[expert]))

    def detached(self, values_P: Tensor) -> "RoutedPlaces":
        values = self._of_experts(values_P)
        parts = {
            expert: (places.detached(values[expert]), shape)
            for expert, (places, shape) in self.parts.items()
        }
        return RoutedPlaces(self.groups, self.sizes, parts)


class SwitchTrainer(Switch, Trainer):
    # Not replayed: how many tokens an expert has changes from step to step.

    settings: SwitchSettings
    dictionary: SwitchDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return SwitchDictionary(
            config["activation_dim"], config["dict_size"], config["k"], config["experts"]
        )

    @property
    def constraint(self) -> Constraint:
        return constraints.OF_RECIPE[self.training.recipe]

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw encoder and router as torch does linear layers. The decoder is the encoder with rows
        of unit norm."""
        dictionary, bound = self.dictionary, self.d_model**-0.5
        for weight in (dictionary.encoder.weight, dictionary.router.weight):
            weight.uniform_(-bound, bound, generator=self.generator)
        dictionary.decoder.copy_(dictionary.encoder.weight)
        constraints.normalise_(dictionary.decoder, 1, constraints.FLOAT32_EPSILON)

    def start(self, x_BD: Tensor, y_BD: Tensor) -> None:
        """Start the biases of decoder and router at the geometric median of the first batch."""
        median_D = losses.geometric_median(x_BD)
        for bias_D in (self.dictionary.b_dec, self.dictionary.b_router):
            bias_D.data.copy_(median_D)

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        """Reconstruction loss and the load-balancing loss."""
        dictionary = self.dictionary
        chances_BE = dictionary.route(x_BD)
        groups, chances_B = Groups.of(chances_BE)
        places, z_P = self.encoded(x_BD, groups)
        f_P = z_P * places.of_tokens(chances_B)
        # A latent fires if it was kept, even where its value is 0.
        self.count_fired(places.latents(), places)
        x_hat_BD = places.decode(f_P, dictionary.decoder, dictionary.decoder_copy)
        x_hat_BD = x_hat_BD + dictionary.b_dec
        error = self.error(y_BD, x_hat_BD)
        balance = load_balance(chances_BE, groups.counts)
        loss = error + self.settings.lb_alpha * balance
        parts = {self.error_name: error.detach(), "load_balance": balance.detach()}
        return Forward(loss, parts, f_P, places, x_hat_BD)

    def encoded(self, x_BD: Tensor, groups: Groups) -> tuple[RoutedPlaces, Tensor]:
        """The places of the k largest latents of each token's expert, and their values after a
        ReLU."""
        dictionary, sizes = self.dictionary, self.dictionary.sizes
        weights, copies = dictionary.encoder.weight.split(sizes), None
        if dictionary.encoder_copy is not None:
            copies = dictionary.encoder_copy.split(sizes)
        parts, values = {}, []
        for expert, x_SD in enumerate(groups.sort(x_BD).split(groups.counts)):
            if len(x_SD):
                encoding = Encoding(
                    x_SD,
                    weights[expert],
                    None,
                    dictionary.b_dec,
                    self.dtype,
                    None if copies is None else copies[expert],
                )
                places, z_P = top_positive_of_each(encoding, dictionary.k)
                parts[expert] = (places, z_P.shape)
                values.append(z_P.flatten())
        return RoutedPlaces(groups, sizes, parts), torch.cat(values)

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "k": int(self.sparsity_value),
            "experts": self.settings.experts,
            "lb_alpha": self.settings.lb_alpha,
        }


def load_balance(chances_BE: Tensor, counts: Sequence[int]) -> Tensor:
    """E times the sum over experts of the share of tokens sent there times the mean probability;
    float32 scalar, 1 where both are uniform. Section 3 of the paper, as switch_sae computes it."""
    tokens, experts = chances_BE.shape
    shares_E = chances_BE.new_tensor(counts) / tokens
    return experts * (shares_E * chances_BE.mean(dim=0)).sum()
