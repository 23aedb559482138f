"""Run in the environment of sae-bench: train a JumpReLU of Anthropic's kind with SAELens's own
SAETrainer. Argument: the folder ROOT, with job.pt, a list of dictionaries of

settings  arguments of JumpReLUTrainingSAEConfig
window    for how many steps a dead latent has not fired
rate      the learning rate
weights   W_enc, b_enc, W_dec, b_dec and threshold at first
batches   the activations of each step, [steps, B, D]

and that takes trained.pt: for each, the weights at the end, and the losses by name [steps].
"""

import sys
from pathlib import Path
from typing import Any

import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer


def train(job: dict[str, Any]) -> dict[str, Any]:
    sae = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**job["settings"]))
    sae.load_state_dict(job["weights"])
    batches = job["batches"]
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=batches.shape[0] * batches.shape[1],
            train_batch_size_samples=batches.shape[1],
            lr=job["rate"],
            lr_end=job["rate"],
            dead_feature_window=job["window"],
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        iter([]),
    )
    losses: dict[str, list[float]] = {}
    for batch in batches:
        step = trainer.step(batch)
        trainer.n_training_steps += 1
        for name, loss in step.losses.items():
            losses.setdefault(name, []).append(loss.item())
    return {"weights": sae.state_dict(), "losses": losses}


def main() -> None:
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    jobs = torch.load(root / "job.pt", weights_only=True)
    torch.save([train(job) for job in jobs], root / "trained.pt")


if __name__ == "__main__":
    main()
