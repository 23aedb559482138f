"""What a CUDA graph of a training step saves: an architecture's step as it is, and replayed."""

import statistics
from typing import Any

import torch
import with_saemake
from torch import Tensor

from on_gpu.run import Run
from on_gpu.same_bytes import sha256
from on_gpu.trainers import case_of, copied, ours
from saemake import architectures
from saemake.architectures.trainer import Trainer

STEP = 5000  # after the threshold's start, when latents can be dead
STEPS = 5


def graphs(run: Run) -> dict[str, Any]:
    """A row for each architecture and size: milliseconds with and without a graph, and whether the
    weights are the same."""
    rows = []
    for d_model, width in run.choose([(512, 4096), (512, 16384), (2304, 16384)], [(64, 512)]):
        for name in architectures.names():
            about = {"architecture": name, "d_model": d_model, "width": width}
            rows.append(run.row(about, lambda one=about: graph_case(**one, run=run)))
    return {"rows": rows}


def graph_case(architecture: str, d_model: int, width: int, run: Run) -> dict[str, Any]:
    case = case_of(architecture, d_model, width, run.choose(80, 16))
    x_BD = with_saemake.batch(d_model)
    plain = ours(case, x_BD, run.device)
    x_BD = x_BD.to(run.device, torch.bfloat16)
    plain.replays.on = False
    plain.update(STEP, x_BD)
    replayed = copied(plain, case)
    for _ in range(STEPS):
        plain.update(STEP, x_BD)
        replayed.update(STEP, x_BD)
    same = sha256(plain) == sha256(replayed)
    plain_ms, replayed_ms = (median_ms(trainer, x_BD, run) for trainer in (plain, replayed))
    return {
        "same_bytes": same,
        "ms": plain_ms,
        "replayed_ms": replayed_ms,
        "ratio": plain_ms / replayed_ms,
        "peak_gib": run.peak_gib(),
    }


def median_ms(trainer: Trainer, x_BD: Tensor, run: Run) -> float:
    def step() -> None:
        trainer.update(STEP, x_BD)

    run.seconds(step, 3)
    return statistics.median(1000 * run.seconds(step, run.choose(20, 1)) for _ in range(3))
