"""Run in the environment of sae-bench: its own core evaluation of SAEs, per-latent figures and all.
Argument: the folder ROOT, with

job.json       model_name, layer, dataset (a folder with train.parquet), context_size,
               batch_prompts, reconstruction_batches, variance_batches, threads, repository, and
               saes: a list of {folder, threshold}; threshold is for TopK alone
downloaded/    each SAE's folder, with ae.pt and config.json

and that takes

sae_bench.json {folder: {metrics: {name: value}, latents: {name: [value of each latent]}}}, as
               multiple_evals returns them: not rounded, NaN where a latent never fired
contexts.npy   the tokens that each SAE was judged on, int64 [contexts, context_size]: those of the
               reconstruction batches, then those of the variance batches
seconds.json   {folder: {judging: seconds of multiple_evals, loading: those of it that load the LM}}

HF_HOME must have the model and HF_HUB_OFFLINE be 1.
"""

import json
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_bench.custom_saes.run_all_evals_dictionary_learning_saes import TRAINER_LOADERS
from sae_bench.evals.core.main import multiple_evals
from sae_lens.training.activations_store import ActivationsStore
from transformer_lens import HookedTransformer


def load(root: Path, job: dict[str, Any], folder: str, threshold: bool) -> torch.nn.Module:
    """The SAE as the loader of its trainer's class makes it."""
    config = json.loads((root / "downloaded" / folder / "config.json").read_text())
    return TRAINER_LOADERS[config["trainer"]["trainer_class"]](
        repo_id=job["repository"],
        filename=f"{folder}/ae.pt",
        model_name=job["model_name"],
        device=torch.device("cpu"),
        dtype=torch.float32,
        layer=job["layer"],
        local_dir=str(root / "downloaded"),
        **({"use_threshold_at_inference": True} if threshold else {}),
    )


def record_contexts() -> list[torch.Tensor]:
    """A list that gets every batch of tokens [B, L] that an ActivationsStore gives from now on."""
    batches: list[torch.Tensor] = []
    get_batch_tokens = ActivationsStore.get_batch_tokens

    def recording(self: ActivationsStore, *arguments: Any, **options: Any) -> torch.Tensor:
        tokens_BL = get_batch_tokens(self, *arguments, **options)
        batches.append(tokens_BL.clone())
        return tokens_BL

    ActivationsStore.get_batch_tokens = recording
    return batches


def record_loading() -> list[float]:
    """A list that gets the seconds of every loading of an LM from now on."""
    seconds: list[float] = []
    load_model = HookedTransformer.from_pretrained_no_processing

    def recording(*arguments: Any, **options: Any) -> HookedTransformer:
        started = time.monotonic()
        model = load_model(*arguments, **options)
        seconds.append(time.monotonic() - started)
        return model

    HookedTransformer.from_pretrained_no_processing = recording
    return seconds


def judge(root: Path, job: dict[str, Any], folder: str, sae: torch.nn.Module) -> dict[str, Any]:
    """What multiple_evals returns of one SAE. It logs an error and goes on where one fails."""
    results = multiple_evals(
        selected_saes=[(folder, sae)],
        n_eval_reconstruction_batches=job["reconstruction_batches"],
        n_eval_sparsity_variance_batches=job["variance_batches"],
        eval_batch_size_prompts=job["batch_prompts"],
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
        exclude_special_tokens_from_reconstruction=True,
        dataset=job["dataset"],
        context_size=job["context_size"],
        output_folder=str(root / "core"),
        dtype="float32",
        device="cpu",
        force_rerun=True,
    )
    if len(results) != 1:
        raise RuntimeError(f"{folder}: SAE Bench did not evaluate it; see its log")
    categories = results[0]["metrics"].values()
    return {
        "metrics": dict(chain.from_iterable(category.items() for category in categories)),
        "latents": dict(results[0]["feature_metrics"]),
    }


def main() -> None:
    root = Path(sys.argv[1])
    job = json.loads((root / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    batches, loading = record_contexts(), record_loading()
    judged, seconds, contexts = {}, {}, None
    for sae in job["saes"]:
        folder = sae["folder"]
        loaded = load(root, job, folder, sae.get("threshold", False))
        started = time.monotonic()
        judged[folder] = judge(root, job, folder, loaded)
        seconds[folder] = {"judging": time.monotonic() - started, "loading": sum(loading)}
        loading.clear()
        seen = torch.cat(batches)
        batches.clear()
        if contexts is not None and not torch.equal(seen, contexts):
            raise RuntimeError(f"{folder}: judged on other contexts than the SAEs before it")
        contexts = seen
    (root / "sae_bench.json").write_text(json.dumps(judged))
    (root / "seconds.json").write_text(json.dumps(seconds))
    np.save(root / "contexts.npy", contexts.numpy())


if __name__ == "__main__":
    main()
