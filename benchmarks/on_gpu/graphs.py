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

STEP = 4000  # after the threshold's start, before a latent can be dead: AuxK asks the device
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
    plain.update(STEP, x_BD)  # Adam's state exists from here on
    replayed = copied(plain, case)
    found = {"ms": median_ms(plain, x_BD, run), "peak_gib": run.peak_gib()}
    if run.device.type != "cuda":
        return found
    plain = copied(replayed, case)
    for _ in range(STEPS):
        plain.update(STEP, x_BD)
    graph = captured(replayed, x_BD)
    for _ in range(STEPS - 1):  # one was for warming up
        graph.replay()
    torch.cuda.synchronize()
    found["same_bytes"] = sha256(plain) == sha256(replayed)
    found["replayed_ms"] = statistics.median(
        1000 * run.seconds(graph.replay, run.choose(20, 1)) for _ in range(3)
    )
    found["ratio"] = found["ms"] / found["replayed_ms"]
    return found


def median_ms(trainer: Trainer, x_BD: Tensor, run: Run) -> float:
    def step() -> None:
        trainer.update(STEP, x_BD)

    run.seconds(step, 2)
    return statistics.median(1000 * run.seconds(step, run.choose(10, 1)) for _ in range(3))


def captured(trainer: Trainer, x_BD: Tensor) -> torch.cuda.CUDAGraph:
    """The graph of one step, after one step on the stream that it is captured on."""
    for group in trainer.optimizer.param_groups:
        group["capturable"] = True
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        trainer.update(STEP, x_BD)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        trainer.update(STEP, x_BD)
    return graph
