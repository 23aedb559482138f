"""SAE Bench's feature absorption, on words by their first letters. SAE Bench draws from generators
that it never seeds, and reads the vocabulary in the order of a hash map. This seeds them, and sorts
the vocabulary."""

import functools
from pathlib import Path
from typing import Any

from calling import NoResultsError, UnjudgeableError, results_of
from job import Job, seed_everything
from lm import language_model
from sae_bench.custom_saes.base_sae import BaseSAE
from sae_bench.evals.absorption import common, main, vocab
from sae_bench.evals.absorption.eval_config import AbsorptionEvalConfig

PROBES = "probes"
RUN_K_SPARSE, RUN_ABSORPTION = (
    main.run_k_sparse_probing_experiment,
    main.run_feature_absortion_experiment,
)
GET_TOKENS = vocab.get_tokens


def setup(job: Job) -> None:
    """The probes for first letters, and the activations that they were trained and tested on."""
    sort_vocabulary()
    config = _config(job)
    common.load_or_train_probe(
        language_model(job),
        base_template=config.prompt_template,
        pos_idx=config.prompt_token_pos,
        layer=job.layer,
        probes_dir=job.setup / PROBES,
        device=job.device,
    )


def judge(job: Job, sae: BaseSAE) -> Path:
    """The file with the results of an SAE. Raises UnjudgeableError where too few letters can be
    told from the LM's activations: SAE Bench then writes no file, and leaves out the SAEs after
    it."""
    sort_vocabulary()
    k_sparse_results: list[Any] = []
    probes, k_sparse = job.setup / PROBES, job.work / "k_sparse_probing"

    def run_k_sparse(**options: Any) -> Any:
        # After the LM is loaded, which only the first SAE of a process does.
        seed_everything(job.seed)
        result = RUN_K_SPARSE(**options, probes_dir=probes, experiment_dir=k_sparse)
        k_sparse_results.append(result)
        return result

    main.run_k_sparse_probing_experiment = run_k_sparse
    main.run_feature_absortion_experiment = functools.partial(
        RUN_ABSORPTION,
        probes_dir=probes,
        experiment_dir=job.work / "feature_absorption",
        sparse_probing_experiment_dir=k_sparse,
    )
    config = _config(job)
    try:
        return results_of(main.run_eval, config, job, sae)
    except NoResultsError:
        letters = int((k_sparse_results[0]["f1_probe"] > config.min_GT_probe_f1).sum())
        raise UnjudgeableError(
            f"only {letters} first letters can be told from the LM's activations (F1 over"
            f" {config.min_GT_probe_f1}); it needs {config.min_feats_for_eval}"
        ) from None


def sort_vocabulary() -> None:
    """Let SAE Bench read the vocabulary in the order of its words."""

    def in_order(*arguments: Any, **options: Any) -> list[str]:
        return sorted(GET_TOKENS(*arguments, **options))

    vocab.get_tokens = in_order


def _config(job: Job) -> AbsorptionEvalConfig:
    return AbsorptionEvalConfig(model_name=job.model, **job.settings)
