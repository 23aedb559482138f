"""The training step of p_anneal."""

from typing import Any

import torch
from torch import Tensor

from saemake.architectures import constraints, losses
from saemake.architectures.p_anneal import PAnneal, PAnnealSettings
from saemake.architectures.places import Places
from saemake.architectures.relu import ResamplingTrainer
from saemake.architectures.trainer import Forward


class Trainer(PAnneal, ResamplingTrainer):
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
        # Of recent batches, the penalty with p and with the next p.
        self.recent: list[tuple[Tensor, Tensor]] = []

    def penalty(self, f_P: Tensor, places: Places, p: float) -> Tensor:
        if self.settings.sparsity_function == "Lp^p":
            return losses.lp_to_the_p(f_P, places, p)
        return losses.lp(f_P, places, p)

    def forward(self, x_BD: Tensor, step: int) -> Forward:
        f_P, places, x_hat_BD = self.reconstruct(x_BD)
        l2 = losses.reconstruction(x_BD, x_hat_BD)
        sparsity = self.penalty(f_P, places, self.p)
        loss = l2 + sparsity * self.coefficient * self.sparsity_scale(step)
        self.remember(f_P, places, sparsity.detach())
        if step in self.update_of_step:
            self.anneal(self.update_of_step[step])
        parts = {"l2": l2.detach(), "sparsity": sparsity.detach()}
        return Forward(loss, parts, f_P, places, x_hat_BD)

    @torch.no_grad()
    def remember(self, f_P: Tensor, places: Places, sparsity: Tensor) -> None:
        """Keep this batch's penalty with p and with the next p, on the device."""
        if self.next_p is not None:
            both = (sparsity, self.penalty(f_P, places, self.next_p))
            self.recent = [*self.recent, both][-self.settings.sparsity_queue_length :]

    def anneal(self, update: int) -> None:
        """Go to the next p from the next step on; the one place that waits for the device."""
        if self.next_p is not None:
            now, then = zip(*self.recent, strict=True)
            self.coefficient *= (torch.stack(now).mean() / torch.stack(then).mean()).item()
        self.p = self.p_of_update[update]
        self.next_p = self.p_of_update[min(update + 1, len(self.p_of_update) - 1)]

    def after_optimizer(self, step: int, x_BD: Tensor) -> None:
        interval = self.settings.resample_steps
        if interval is not None and step % interval == interval - 1:
            if self.training.recipe == "dictionary_learning":
                # The release assigns new weights to a copy: only Adam's moments change.
                self.forget(self.dead(len(x_BD)).nonzero().squeeze(1))
            else:
                self.resample(x_BD)

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
        self.recent = [(now.to(device), then.to(device)) for now, then in annealing["recent"]]

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
    """The steps that p changes at, from `anneal_start` to `end`."""
    count = settings.n_sparsity_updates
    if isinstance(count, str):
        count = end - settings.anneal_start + 1
    return torch.linspace(settings.anneal_start, end, count, dtype=torch.int64).tolist()
