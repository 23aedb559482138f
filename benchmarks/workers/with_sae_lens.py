"""SAELens's training step, its SAETrainer's own."""

from typing import Any

import loop
import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

KINDS: dict[str, tuple[Any, Any]] = {
    "top_k": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batch_top_k": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
}


def main() -> None:
    asked = loop.arguments()
    torch.set_num_threads(asked.threads)
    kind, settings = KINDS[asked.architecture]
    sae = kind(
        settings(
            d_in=asked.d_model,
            d_sae=asked.width,
            k=asked.active,
            device=asked.device,
            apply_b_dec_to_input=True,
        )
    )
    state = torch.load(asked.state, weights_only=True)
    given = state["weights"]
    with torch.no_grad():
        sae.W_enc.copy_(given["encoder.weight"].T)
        sae.W_dec.copy_(given["decoder.weight"].T)
        sae.b_enc.copy_(given["encoder.bias"])
        sae.b_dec.copy_(given["b_dec"])
    x_BD = state["batch"].to(asked.device)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=500_000_000,
            train_batch_size_samples=len(x_BD),
            lr_end=3e-5,
            device=asked.device,
            autocast=asked.dtype == "bfloat16",
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        iter([]),
    )

    def step(number: int) -> None:
        trainer.step(x_BD)
        trainer.n_training_steps += 1

    step(0)
    loop.serve(asked, step)


if __name__ == "__main__":
    main()
