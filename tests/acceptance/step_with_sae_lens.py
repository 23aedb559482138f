"""Run by test_sae_lens_steps.py in the environment of sae-bench: the loss and the gradients of
SAELens's own training classes from given weights on a batch, and the latents of what is exported.
Argument: the folder that has the files and takes the results.
"""

import json
import sys
from pathlib import Path

import torch
from sae_lens import (
    SAE,
    AbsTopKTrainingSAE,
    AbsTopKTrainingSAEConfig,
    MatchingPursuitTrainingSAE,
    MatchingPursuitTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput


def trainer_of(job: dict, shape: dict) -> torch.nn.Module:
    if job["architecture"] == "abs_top_k":
        return AbsTopKTrainingSAE(
            AbsTopKTrainingSAEConfig(
                **shape,
                k=job["k"],
                aux_loss_coefficient=job["auxk_alpha"],
                rescale_acts_by_decoder_norm=False,
            )
        )
    return MatchingPursuitTrainingSAE(
        MatchingPursuitTrainingSAEConfig(
            **shape,
            decoder_init_norm=1.0,
            max_iterations=job["k"],
            residual_threshold=0.0,
            stop_on_duplicate_support=False,
        )
    )


def step(job: dict, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    rows = given["W_dec"]
    sae = trainer_of(job, {"d_in": rows.shape[1], "d_sae": len(rows), "device": "cpu"})
    weights = {key: given[key] for key in dict(sae.named_parameters())}
    sae.load_state_dict(weights)
    found = sae.training_forward_pass(
        TrainStepInput(
            sae_in=given["x"],
            coefficients={},
            dead_neuron_mask=given["dead"],
            n_training_steps=1,
            is_logging_step=False,
        )
    )
    found.loss.backward()
    gradients = {key: parameter.grad for key, parameter in sae.named_parameters()}
    return {"loss": found.loss.detach(), **gradients}


def main() -> None:
    root = Path(sys.argv[1])
    for job in json.loads((root / "jobs.json").read_text()):
        name = job["architecture"]
        given = torch.load(root / f"{name}.pt", weights_only=True)
        found = step(job, given) if job["trains"] else {}
        sae = SAE.load_from_disk(root / "saelens" / name)
        with torch.no_grad():
            found["latents"] = sae.encode(given["x"])
            found["reconstructed"] = sae.decode(found["latents"])
        torch.save(found, root / f"{name}_found.pt")


if __name__ == "__main__":
    main()
