"""saemake's training step, by the settings in config.yaml, and what a matrix product takes beside
it."""

import time
from pathlib import Path
from typing import Any

import loop
import torch
import yaml

from saemake import architectures
from saemake.architectures.trainer import Trainer
from saemake.architectures.training_settings import Training

CONFIG = Path(__file__).resolve().parents[2] / "config" / "config.yaml"
SETTINGS: dict[str, dict[str, Any]] = yaml.safe_load(CONFIG.read_text())["architectures"]


def trainer_of(asked: Any) -> Trainer:
    kind = architectures.get(asked.architecture)
    sparsity = asked.active if kind.sparsity in ("k", "l0") else 0.05
    training = Training(
        recipe="dictionary_learning",
        seed=0,
        batch_tokens=loop.B,
        norm_batches=1,
        learning_rate=1e-4,
        warmup_steps=1000,
        decay_start_fraction=0.8,
        autocast=asked.dtype,
        cpu_threads=asked.threads,
    )
    return kind.trainer()(
        d_model=asked.d_model,
        width=asked.width,
        sparsity=sparsity,
        settings=kind.Settings(**{**SETTINGS[asked.architecture], "sweep": [sparsity]}),
        training=training,
        steps=100_000,
        device=torch.device(asked.device),
    )


def batch(d_model: int) -> torch.Tensor:
    """Sums of few of many directions, of norm about 1."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(4 * d_model, d_model, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    chosen = torch.rand(loop.B, 4 * d_model, generator=generator) < 4 / d_model
    return (chosen * torch.rand(loop.B, 4 * d_model, generator=generator)) @ directions


@torch.no_grad()
def leave_active(trainer: Trainer, x_BD: torch.Tensor, active: int) -> None:
    """Lower the bias that decides which latents fire until so many a token do."""
    dictionary = trainer.dictionary
    drawn_BF = x_BD[:64] @ dictionary.encoder_weight.T
    bound = drawn_BF.flatten().kthvalue(drawn_BF.numel() - 64 * active).values
    dictionary.encoder_bias.fill_(-bound)
    if trainer.name == "gated":
        dictionary.get_parameter("gate_bias").fill_(-bound)


def main() -> None:
    asked = loop.arguments()
    torch.set_num_threads(asked.threads)
    trainer = trainer_of(asked)
    x_BD = batch(asked.d_model).to(asked.device)
    if "k" not in dict(trainer.dictionary.named_buffers()):
        leave_active(trainer, x_BD, asked.active)
    state = {k: v.contiguous().cpu() for k, v in trainer.dictionary.state_dict().items()}
    torch.save({"weights": state, "batch": x_BD.cpu()}, asked.state)
    x_BD = x_BD.to(trainer.dtype)
    weight_FD = trainer.dictionary.encoder_weight.detach().to(trainer.dtype).contiguous()

    def step(number: int) -> dict[str, float]:
        forward = trainer.update(number, x_BD)
        return {"l0": forward.l0.item()}

    def product() -> float:
        loop.wait_for(x_BD.device)
        start = time.perf_counter()
        torch.nn.functional.linear(x_BD, weight_FD)
        loop.wait_for(x_BD.device)
        return time.perf_counter() - start

    step(0)
    products = min(product() for _ in range(5))
    loop.serve(asked, lambda number: {**step(number + 1), "product_seconds": products})


if __name__ == "__main__":
    main()
