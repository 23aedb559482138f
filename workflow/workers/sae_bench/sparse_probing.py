"""SAE Bench's sparse probing. The text's activations and the LM's own probes are set up apart. An
SAE that makes them draws random numbers for them first. Its figures then differ."""

import dataclasses
from pathlib import Path

from calling import results_of
from datasets_at_hand import read_from
from job import Job
from sae_bench.custom_saes.base_sae import BaseSAE
from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig
from sae_bench.evals.sparse_probing.main import run_eval
from sae_bench.sae_bench_utils import dataset_utils
from saes import SilentSae


def setup(job: Job) -> None:
    """One dataset at a time: each starts from the seed, whatever other datasets there are."""
    read_from(job.data, dataset_utils)
    config = _config(job)
    for name in config.dataset_names:
        _run(job, dataclasses.replace(config, dataset_names=[name]), SilentSae(job, job.d_model))


def judge(job: Job, sae: BaseSAE) -> Path:
    """The file with the results of an SAE."""
    read_from({}, dataset_utils)
    return _run(job, _config(job), sae)


def _run(job: Job, config: SparseProbingEvalConfig, sae: BaseSAE) -> Path:
    return results_of(run_eval, config, job, sae, artifacts_path=str(job.setup))


def _config(job: Job) -> SparseProbingEvalConfig:
    return SparseProbingEvalConfig(model_name=job.model, **job.settings)
