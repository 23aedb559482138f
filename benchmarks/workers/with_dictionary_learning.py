"""dictionary_learning's training step, under autocast as its trainSAE runs it."""

from typing import Any

import loop
import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.p_anneal import PAnnealTrainer
from dictionary_learning.trainers.standard import StandardTrainer, StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import TopKTrainer

GROUPS = {"group_fractions": [1 / 32, 1 / 16, 1 / 8, 1 / 4, 17 / 32]}
ANNEAL = {"sparsity_function": "Lp^p", "anneal_start": 10_000}
# The trainer, how it calls the sparsity, and what it is given besides.
KINDS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "standard": (StandardTrainer, "l1_penalty", {}),
    "standard_new": (StandardTrainerAprilUpdate, "l1_penalty", {}),
    "gated": (GatedSAETrainer, "l1_penalty", {}),
    "p_anneal": (PAnnealTrainer, "initial_sparsity_penalty", ANNEAL),
    "jump_relu": (JumpReluTrainer, "target_l0", {}),
    "top_k": (TopKTrainer, "k", {}),
    "batch_top_k": (BatchTopKTrainer, "k", {}),
    "matryoshka_batch_top_k": (MatryoshkaBatchTopKTrainer, "k", GROUPS),
}


def main() -> None:
    asked = loop.arguments()
    torch.set_num_threads(asked.threads)
    kind, sparsity, more = KINDS[asked.architecture]
    trainer = kind(
        steps=100_000,
        activation_dim=asked.d_model,
        dict_size=asked.width,
        layer=0,
        lm_name="none",
        lr=1e-4,
        warmup_steps=1000,
        decay_start=80_000,
        device=asked.device,
        seed=0,
        **{sparsity: asked.active if "penalty" not in sparsity else 0.05},
        **more,
    )
    state = torch.load(asked.state, weights_only=True)
    trainer.ae.load_state_dict(state["weights"])
    x_BD = state["batch"].to(asked.device, getattr(torch, asked.dtype))

    def step(number: int) -> None:
        with torch.autocast(
            torch.device(asked.device).type,
            dtype=torch.bfloat16,
            enabled=asked.dtype == "bfloat16",
        ):
            trainer.update(number, x_BD)

    step(0)
    loop.serve(asked, lambda number: step(number + 1))


if __name__ == "__main__":
    main()
