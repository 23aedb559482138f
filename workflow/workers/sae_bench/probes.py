"""sae-probes through SAE Bench: probes of 1, 2 and 5 latents on 113 binary datasets of its own."""

import shutil
from pathlib import Path

from calling import results_of
from job import Job
from sae_bench.custom_saes.base_sae import BaseSAE
from sae_bench.evals.sparse_probing_sae_probes.eval_config import SparseProbingSaeProbesEvalConfig
from sae_bench.evals.sparse_probing_sae_probes.main import run_eval
from sae_probes import run_baseline_evals
from sae_probes.generate_model_activations import ensure_dataset_activations

ACTIVATIONS, BASELINES = "activations", "baselines"


def setup(job: Job) -> None:
    """The LM's activations and its own probes on them."""
    config = _config(job, job.setup / BASELINES)
    common = {"model_name": job.model, "model_cache_path": config.model_cache_path}
    ensure_dataset_activations(
        **common,
        dataset_short_names=config.dataset_names,
        hook_names=[job.hook],
        device=job.device,
    )
    if config.include_llm_baseline:
        run_baseline_evals(
            **common,
            hook_name=job.hook,
            setting=config.setting,
            method=config.baseline_method,
            results_path=config.results_path,
            datasets=config.dataset_names,
            device=job.device,
            seed=config.random_seed,
        )


def judge(job: Job, sae: BaseSAE) -> Path:
    """The file with the results of an SAE. sae-probes takes any result that lies in its folder, of
    whatever SAE and seed: the folder is new."""
    results = job.work / "probes"
    if (job.setup / BASELINES).exists():
        shutil.copytree(job.setup / BASELINES, results)
    return results_of(run_eval, _config(job, results), job, sae)


def _config(job: Job, results: Path) -> SparseProbingSaeProbesEvalConfig:
    return SparseProbingSaeProbesEvalConfig(
        model_name=job.model,
        results_path=str(results),
        model_cache_path=str(job.setup / ACTIVATIONS),
        **job.settings,
    )
