"""Run by test_sae_bench_alone.py in the environment of sae-bench: `run_eval` called by hand, on the
SAEs of a job.json in their order; the results are in `{work}/{i}.json`.

Nothing is set up before: the first SAE makes what the others find. Absorption draws from generators
that it never seeds, and reads a hash map in its order. This seeds them, and sorts the words.
"""

import functools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow" / "workers" / "sae_bench"))

import torch
from absorption import sort_vocabulary
from datasets_at_hand import read_from
from job import Job, read, seed_everything
from ravel import PROMPTS, see_tuples
from sae_bench.evals.absorption import main as absorption
from sae_bench.evals.absorption.eval_config import AbsorptionEvalConfig
from sae_bench.evals.autointerp import main as autointerp
from sae_bench.evals.autointerp.eval_config import AutoInterpEvalConfig
from sae_bench.evals.ravel import main as ravel
from sae_bench.evals.ravel.eval_config import RAVELEvalConfig
from sae_bench.evals.scr_and_tpp import dataset_creation
from sae_bench.evals.scr_and_tpp import main as scr_and_tpp
from sae_bench.evals.scr_and_tpp.eval_config import ScrAndTppEvalConfig
from sae_bench.evals.sparse_probing import main as sparse_probing
from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig
from sae_bench.evals.sparse_probing_sae_probes import main as sae_probes
from sae_bench.evals.sparse_probing_sae_probes.eval_config import SparseProbingSaeProbesEvalConfig
from sae_bench.evals.unlearning import main as unlearning
from sae_bench.evals.unlearning.eval_config import UnlearningEvalConfig
from sae_bench.evals.unlearning.utils import feature_activation, metrics
from sae_bench.sae_bench_utils import dataset_utils
from saes import load
from stages import dumped
from unlearning import CORPUS, CORPUS_FILE


def call(job: Job, saes: list[tuple[str, Any]]) -> None:
    """SAE Bench's results in `{work}/results`."""
    results, artifacts = str(job.work / "results"), str(job.work / "artifacts")
    match job.evaluation:
        case "sparse_probing":
            config = SparseProbingEvalConfig(model_name=job.model, **job.settings)
            sparse_probing.run_eval(config, saes, job.device, results, artifacts_path=artifacts)
        case "scr" | "tpp":
            scr = job.evaluation == "scr"
            config = ScrAndTppEvalConfig(model_name=job.model, perform_scr=scr, **job.settings)
            scr_and_tpp.run_eval(config, saes, job.device, results, artifacts_path=artifacts)
        case "sae_probes":
            config = SparseProbingSaeProbesEvalConfig(
                model_name=job.model,
                results_path=f"{artifacts}/results",
                model_cache_path=f"{artifacts}/activations",
                **job.settings,
            )
            sae_probes.run_eval(config, saes, job.device, results)
        case "ravel":
            _ravel(job, saes, results)
        case "autointerp":
            config = AutoInterpEvalConfig(model_name=job.model, **job.settings)
            autointerp.run_eval(config, saes, job.device, "key", results, artifacts_path=artifacts)
        case "unlearning":
            _unlearning(job, saes, results)
        case "absorption":
            _absorption(job, saes, results)


def _ravel(job: Job, saes: list[tuple[str, Any]], results: str) -> None:
    see_tuples()  # without it RAVEL fails under transformers 5
    base = job.work / "ravel" / "base"
    shutil.copytree(job.data[PROMPTS], base)
    config = RAVELEvalConfig(model_name=job.model, artifact_dir=str(base.parent), **job.settings)
    ravel.run_eval(config, saes, job.device, results, artifacts_path=str(job.work / "artifacts"))


def _unlearning(job: Job, saes: list[tuple[str, Any]], results: str) -> None:
    CORPUS_FILE.parent.mkdir(parents=True)
    CORPUS_FILE.symlink_to(job.data[CORPUS] / CORPUS_FILE.name)
    config = UnlearningEvalConfig(model_name=job.model, **job.settings)
    seed_everything(job.seed)  # it draws which questions it would train on from numpy's numbers
    artifacts = str(job.work / "artifacts")
    unlearning.run_eval(config, saes, job.device, results, artifacts_path=artifacts)


def _absorption(job: Job, saes: list[tuple[str, Any]], results: str) -> None:
    sort_vocabulary()
    # Its own cache is a folder of the installed package.
    probes, experiment = job.work / "probes", job.work / "k_sparse_probing"
    absorption.run_k_sparse_probing_experiment = functools.partial(
        absorption.run_k_sparse_probing_experiment, probes_dir=probes, experiment_dir=experiment
    )
    absorption.run_feature_absortion_experiment = functools.partial(
        absorption.run_feature_absortion_experiment,
        probes_dir=probes,
        experiment_dir=job.work / "feature_absorption",
        sparse_probing_experiment_dir=experiment,
    )
    (job.work / "results").mkdir()
    config = AbsorptionEvalConfig(model_name=job.model, **job.settings)
    for named in saes:
        seed_everything(job.seed)
        absorption.run_eval(config, [named], job.device, results, force_rerun=True)


def main() -> None:
    job = read(Path(sys.argv[1]))
    torch.set_num_threads(job.threads)
    read_from(job.data, dataset_utils, dataset_creation, feature_activation, metrics)
    saes = [(str(index), load(job, folder)) for index, folder in enumerate(job.saes)]
    call(job, saes)
    for path in (job.work / "results").rglob("*.json"):
        content = json.loads(path.read_text())
        parts = ("eval_result_metrics", "eval_result_details", "eval_result_unstructured")
        index = path.name.split("_")[0]
        (job.work / f"{index}.json").write_text(dumped({part: content[part] for part in parts}))


if __name__ == "__main__":
    main()
