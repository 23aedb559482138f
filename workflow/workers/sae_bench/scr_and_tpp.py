"""SAE Bench's spurious correlation removal (SCR) and targeted probe perturbation (TPP): one code,
by `perform_scr`. The text's activations and the probes are set up apart, as for sparse probing."""

from pathlib import Path

from calling import results_of
from datasets_at_hand import read_from
from job import Job
from sae_bench.custom_saes.base_sae import BaseSAE
from sae_bench.evals.scr_and_tpp import dataset_creation
from sae_bench.evals.scr_and_tpp.eval_config import ScrAndTppEvalConfig
from sae_bench.evals.scr_and_tpp.main import run_eval
from sae_bench.sae_bench_utils import dataset_utils
from saes import SilentSae


def setup(job: Job) -> None:
    """With an SAE that draws as many numbers as any: the probes are those of SAE Bench's own first
    run."""
    read_from(job.data, dataset_utils, dataset_creation)
    config = _config(job)
    _run(job, SilentSae(job, max(job.d_model, *config.n_values)))


def judge(job: Job, sae: BaseSAE) -> Path:
    """The file with the results of an SAE."""
    read_from({}, dataset_utils, dataset_creation)
    return _run(job, sae)


def _run(job: Job, sae: BaseSAE) -> Path:
    return results_of(run_eval, _config(job), job, sae, artifacts_path=str(job.setup))


def _config(job: Job) -> ScrAndTppEvalConfig:
    scr = job.evaluation == "scr"
    return ScrAndTppEvalConfig(model_name=job.model, perform_scr=scr, **job.settings)
