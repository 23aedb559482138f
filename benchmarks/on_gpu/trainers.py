"""Trainers of a benchmark's cases, with latents that are dead."""

import copy
from types import SimpleNamespace

import torch
import with_saemake
from torch import Tensor

from saemake import architectures
from saemake.architectures.trainer import Trainer

FIRST_STEP = 5000  # after the threshold's start, when latents can be dead
DEAD_OF = 10  # one latent in so many never fires


def with_dead(trainer: Trainer) -> Trainer:
    """One latent in DEAD_OF never fires."""
    with torch.no_grad():
        trainer.dictionary.encoder_bias[::DEAD_OF].fill_(-10)
    return trainer


def case_of(name: str, d_model: int, width: int, k: int = 80) -> SimpleNamespace:
    return SimpleNamespace(
        architecture=name,
        d_model=d_model,
        width=width,
        active=k,
        dtype="bfloat16",
        threads=4,
        device="cpu",
    )


def ours(case: SimpleNamespace, x_BD: Tensor, device: torch.device) -> Trainer:
    """Ready for step FIRST_STEP, with latents that are dead."""
    trainer = with_saemake.trainer_of(case)
    if trainer.sparsity != "k":
        with_saemake.leave_active(trainer, x_BD.cpu(), case.active)
    else:
        with_dead(trainer)
    case.device = str(device)
    moved = with_saemake.trainer_of(case)
    moved.dictionary.load_state_dict(trainer.dictionary.state_dict())
    moved.tokens_since_fired_F[::DEAD_OF] = 20_000_000
    return moved


def sweep_of(
    name: str, sparsities: tuple[float, ...], d_model: int, width: int, device: torch.device
) -> list[Trainer]:
    trainers = []
    for sparsity in sparsities:
        case = case_of(name, d_model, width, int(sparsity) or 80)
        case.device = str(device)
        trainers.append(with_saemake.trainer_of(case))
    return trainers


def copied(trainer: Trainer, case: SimpleNamespace) -> Trainer:
    other = architectures.get(case.architecture).trainer().__new__(type(trainer))
    other.__init__(  # type: ignore[misc]
        d_model=trainer.d_model,
        width=trainer.width,
        sparsity=trainer.sparsity_value,
        settings=trainer.settings,
        training=trainer.training,
        steps=trainer.steps,
        device=trainer.tokens_since_fired_F.device,
    )
    # Adam takes over the very tensors that it is given, where their device is its own.
    other.load_state(copy.deepcopy(trainer.state()))
    return other
