"""SAE Bench's unlearning: the lowest accuracy on WMDP's questions that clamping latents gives while
MMLU's stay answered. The questions that the LM knows, and its answers to them, are set up apart.

The LM is an instruction-tuned one whose prompts SAE Bench knows; the SAEs may be of its base model.
"""

import shutil
from pathlib import Path

import lm
import torch
from calling import results_of
from datasets import load_dataset
from datasets_at_hand import read_from
from job import Job, seed_everything
from sae_bench.custom_saes.base_sae import BaseSAE
from sae_bench.evals.unlearning.eval_config import UnlearningEvalConfig
from sae_bench.evals.unlearning.main import run_eval
from sae_bench.evals.unlearning.utils import feature_activation, metrics

# The corpus to forget, by its place below the current folder, which SAE Bench reads it from.
CORPUS = "bio-forget-corpus"
CORPUS_FILE = Path("sae_bench/evals/unlearning/data", f"{CORPUS}.jsonl")


def setup(job: Job) -> None:
    """One set of questions at a time: each starts from the seed. Raises ValueError where the LM
    knows the answers to none of a set's questions."""
    read_from(job.data, metrics, feature_activation)
    config, model = _config(job), lm.language_model(job)
    folder = str(job.setup / "unlearning" / job.model)
    together = 2 * config.llm_batch_size  # as in the evaluation
    torch.set_grad_enabled(False)
    for name in config.dataset_names:
        seed_everything(job.seed)
        metrics.save_target_question_ids(model, together, folder, name)
        label = name if name == "wmdp-bio" else f"mmlu-{name.replace('_', '-')}"
        known = Path(folder, "data/question_ids/all", f"{label}_{config.target_metric}.csv")
        if not known.read_text().split():
            raise ValueError(f"{job.model} answers no question of {name} in every order of answers")
        asked = {"target_metric": config.target_metric, "verbose": False}
        metrics.get_baseline_metrics(model, together, folder, name, asked)


def judge(job: Job, sae: BaseSAE) -> Path:
    """The file with the results of an SAE. What it leaves behind for another SAE goes away with the
    folder that it works in."""
    read_from(job.data, metrics, feature_activation)
    shutil.copytree(job.setup, "artifacts")
    CORPUS_FILE.parent.mkdir(parents=True)
    _lay_out_corpus(job.data[CORPUS])
    return results_of(run_eval, _config(job), job, sae, artifacts_path="artifacts")


def _lay_out_corpus(folder: Path) -> None:
    """The corpus as one JSON object a line, whatever its files are."""
    lines = sorted(folder.rglob("*.jsonl"))
    if len(lines) == 1:
        CORPUS_FILE.symlink_to(lines[0])
    else:
        load_dataset(str(folder), split="train").to_json(CORPUS_FILE)


def _config(job: Job) -> UnlearningEvalConfig:
    return UnlearningEvalConfig(model_name=job.model, **job.settings)
