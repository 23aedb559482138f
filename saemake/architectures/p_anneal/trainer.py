"""PAnneal: the loss and the schedule of p. Its dictionary and initial weights are in relu.py.

Shapes: B activations in a batch, D the model's width, F latents, P places (see places.py).
"""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from saemake.architectures import constraints, losses, schedule
from saemake.architectures.choosing import positive
from saemake.architectures.encoding import Encoding
from saemake.architectures.p_anneal import PAnneal, PAnnealSettings
from saemake.architectures.places import Places, Positive
from saemake.architectures.relu import ReluTrainer, forget_moments, resample, silent_latents
from saemake.architectures.trainer import Forward


class PAnnealTrainer(PAnneal, ReluTrainer):
    replayed = True

    constraint = constraints.UNIT_NORM

    settings: PAnnealSettings

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        steps = update_steps(self.settings, self.settings.anneal_end or self.steps)
        self.p_of_update = torch.linspace(
            self.settings.p_start, self.settings.p_end, len(steps)
        ).tolist()
        self.update_of_step = {step: update for update, step in enumerate(steps)}
        self.p = self.settings.p_start
        self.next_p: float | None = None
        self.coefficient = self.sparsity_value
        # The penalties of recent batches: with p, and with the next p.
        self.recent: list[tuple[Tensor, Tensor]] = []
        self.penalties: tuple[Tensor, Tensor] | None = None  # those of this batch

    def penalty(self, f_P: Tensor, places: Places, p: float | Tensor) -> Tensor:
        """The Lp norm, or the Lp norm to the power p; float32 scalar."""
        if self.settings.sparsity_function == "Lp^p":
            return losses.lp_to_the_p(f_P, places, p)
        return losses.lp(f_P, places, p)

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        encoding = self.encoding(x_BD)
        # Latents above 0: the ReLU.
        places, f_P = positive(encoding, self.powers(encoding))
        x_hat_BD = self.reconstruction(x_BD, places, f_P)

        error = self.error(y_BD, x_hat_BD)
        sparsity = self.batch_penalty(f_P, places)
        loss = error + sparsity * self.now["coefficient"] * self.now["sparsity_scale"]
        parts = {self.error_name: error.detach(), "sparsity": sparsity.detach()}
        return Forward(loss, parts, f_P, places, x_hat_BD)

    def powers(self, encoding: Encoding) -> Tensor | None:
        """p and the next p, if a kernel computes the penalties with them (float32 [2])."""
        if encoding.by_kernels and self.settings.sparsity_function == "Lp^p":
            return torch.stack([self.now["p"], self.now["next_p"]])
        return None

    def batch_penalty(self, f_P: Tensor, places: Places) -> Tensor:
        """The batch's penalty with p. That with the next p is kept beside it until the step is
        over."""
        if isinstance(places, Positive) and places.power_sums is not None:
            sparsity, next_sparsity = places.power_sums / places.tokens
            self.penalties = (sparsity.detach(), next_sparsity.detach())
            return sparsity
        sparsity = self.penalty(f_P, places, self.now["p"])
        if self.next_p is not None:
            with torch.no_grad():
                next_sparsity = self.penalty(f_P, places, self.now["next_p"])
            self.penalties = (sparsity.detach(), next_sparsity)
        return sparsity

    def schedule(self, step: int) -> dict[str, float]:
        return {
            "sparsity_scale": schedule.sparsity_scale(step, self.settings.sparsity_warmup_steps),
            "p": self.p,
            "next_p": self.p if self.next_p is None else self.next_p,
            "coefficient": self.coefficient,
        }

    def phase(self, step: int, tokens: int) -> Hashable:
        return "before p falls" if self.next_p is None else "p falls"

    def remember_penalties(self) -> None:
        """Keep the batch's penalty with p and with the next p, on the device."""
        if self.next_p is not None:
            assert self.penalties is not None
            with_p, with_next_p = self.penalties
            self.recent.append((with_p.clone(), with_next_p.clone()))
            self.recent = self.recent[-self.settings.sparsity_queue_length :]

    def anneal(self, update: int) -> None:
        """Use the next p from the next step on, and adapt the coefficient so that the mean penalty
        of recent batches stays the same. Waits for the device."""
        if self.next_p is not None:
            with_p, with_next_p = zip(*self.recent, strict=True)
            self.coefficient *= (
                torch.stack(with_p).mean() / torch.stack(with_next_p).mean()
            ).item()
        self.p = self.p_of_update[update]
        self.next_p = self.p_of_update[min(update + 1, len(self.p_of_update) - 1)]

    @property
    def restart_steps(self) -> int | None:
        return self.settings.resample_steps

    def after_optimizer(self, step: int, x_BD: Tensor, y_BD: Tensor) -> None:
        """Change p at its steps. Resample dead latents at the last step of each interval of
        `resample_steps`."""
        self.remember_penalties()
        if step in self.update_of_step:
            self.anneal(self.update_of_step[step])
        interval = self.settings.resample_steps
        if interval is not None and step % interval == interval - 1:
            dead_F = silent_latents(self, interval, len(x_BD))
            if self.training.recipe == "dictionary_learning":
                # Release 0.1.0 assigns the new weights to a copy. Only Adam's moments change.
                forget_moments(self, dead_F.nonzero().squeeze(1))
            else:
                resample(self, x_BD, y_BD, dead_F)

    def state(self) -> dict[str, Any]:
        annealing = {
            "p": self.p,
            "next_p": self.next_p,
            "coefficient": self.coefficient,
            "recent": self.recent,
        }
        return {**super().state(), "annealing": annealing}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        annealing, device = state["annealing"], self.dictionary.bias.device
        self.p, self.next_p = annealing["p"], annealing["next_p"]
        self.coefficient = annealing["coefficient"]
        self.recent = [
            (first.to(device), second.to(device)) for first, second in annealing["recent"]
        ]

    def progress(self) -> dict[str, float]:
        return {"p": self.p, "sparsity_coefficient": self.coefficient}

    def recipe_entries(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "sparsity_function": settings.sparsity_function,
            "sparsity_penalty": self.sparsity_value,
            "p_start": settings.p_start,
            "p_end": settings.p_end,
            "anneal_start": settings.anneal_start,
            "anneal_end": settings.anneal_end or self.steps,
            "sparsity_queue_length": settings.sparsity_queue_length,
            "n_sparsity_updates": settings.n_sparsity_updates,
            "sparsity_warmup_steps": settings.sparsity_warmup_steps,
            "resample_steps": settings.resample_steps,
        }


def update_steps(settings: PAnnealSettings, end: int) -> list[int]:
    """The steps at which p changes, from `anneal_start` to `end`."""
    count = settings.n_sparsity_updates
    if isinstance(count, str):
        count = end - settings.anneal_start + 1
    return torch.linspace(settings.anneal_start, end, count, dtype=torch.int64).tolist()
