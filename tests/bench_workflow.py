"""A project in which SAE Bench's evaluations run through the workflow: bench_ground's LM and data,
and small settings."""

import json
import random
from pathlib import Path
from typing import Any

import bench_ground
import peers
from bench_ground import Ground
from conftest import Workflow

from saemake import evaluation

MODEL = "bench"
LAYER = f"results/{MODEL}/L{bench_ground.LAYER}"
SWEEP = f"{LAYER}/top_k/512"
COMMON = {"llm_batch_size": 32}
PROBING = {**COMMON, "context_length": 32}
ABLATING = {**PROBING, "probe_epochs": 3, "train_set_size": 16, "test_set_size": 16}
SETTINGS: dict[str, dict[str, Any]] = {
    "sae_bench_sparse_probing": {
        **PROBING,
        "probe_train_set_size": 16,
        "probe_test_set_size": 16,
    },
    "sae_bench_scr": {**ABLATING, "n_values": [2, 10, 20]},
    "sae_bench_tpp": {**ABLATING, "n_values": [2, 10, 20]},
    "sae_bench_sae_probes": {"dataset_names": ["5_hist_fig_ismale", "21_headline_istrump"]},
    "sae_bench_autointerp": {
        **COMMON,
        "total_tokens": 20_000,
        "llm_context_size": 64,
        "n_latents": 20,
    },
    "sae_bench_ravel": {"llm_batch_size": 8, "num_pairs_per_attribute": 40, "num_epochs": 1},
    "sae_bench_absorption": {
        "llm_batch_size": 10,
        "min_GT_probe_f1": -1,
        "min_feats_for_eval": 1,
        "max_k_value": 3,
        "k_sparse_probe_num_epochs": 5,
        "precalc_k_sparse_probe_sae_acts": True,
    },
}
# Of another LM, which answers questions.
UNLEARNING = {
    "llm_batch_size": 4,
    "dataset_names": ["wmdp-bio", "human_aging"],
    "dataset_size": 64,
    "seq_len": 32,
    "retain_thresholds": [0.05, 0.2],
    "n_features_list": [1, 3],
    "multipliers": [5, 25],
}
# Evaluations that ask no judge.
WITHOUT_JUDGE = [name for name in SETTINGS if name != "sae_bench_autointerp"]


def for_run_eval(name: str) -> dict[str, Any]:
    """The small settings of an evaluation, as SAE Bench's `run_eval` takes them."""
    described = evaluation.by_sae_bench(name)
    return {
        "random_seed": 42,
        **({"llm_dtype": "float32"} if described.has_dtype else {}),
        **({"dataset_name": bench_ground.PILE} if described.has_judge else {}),
        **(SETTINGS | {"sae_bench_unlearning": UNLEARNING})[name],
    }


class BenchWorkflow(Workflow):
    """The workflow, with the LM in a Hub's cache of its own."""

    ground: Ground

    def environment(self, **more: str) -> dict[str, str]:
        own = {
            **self.ground.environment,
            "SAEMAKE_SAE_BENCH_PYTHON": str(peers.SAE_BENCH),
        }
        return super().environment(**{**own, **more})


def make(root: Path, **over: Any) -> BenchWorkflow:
    """A project in a folder. `over` are sections laid over its config."""
    ground = bench_ground.make(root / "ground", ())
    folder = root / "project"
    folder.mkdir()
    made = BenchWorkflow(folder, "bench.yaml")
    made.ground = ground
    made.write({**config_of(ground, root / "text"), **over})
    return made


def config_of(ground: Ground, text: Path) -> dict[str, Any]:
    """The project's config: one model, two sweeps of small SAEs, and the datasets as folders."""
    _lay_out_text(text)
    return {
        "build": [MODEL],
        "models": {
            MODEL: {
                "hub": f"EleutherAI/{ground.model}",
                "layers": 3,
                "dtype": "float32",
                "text": "words",
                "context_tokens": 32,
                "llm_batch_contexts": 16,
                "buffer_tokens": 4_096,
                "train_tokens": 40_000,
                "training": {
                    "batch_tokens": 256,
                    "norm_batches": 2,
                    "learning_rate": 1e-3,
                    "warmup_steps": 5,
                    "cpu_threads": 1,
                },
                "baselines": {"pca_tokens": 4_096},
                "evaluations": {
                    "dictionary_learning": {"documents": 40},
                    "sae_bench_core": {
                        "text": None,
                        "context_tokens": 32,
                        "batch_contexts": 8,
                        "reconstruction_batches": 2,
                        "variance_batches": 4,
                    },
                    **SETTINGS,
                },
                "architectures": {
                    "top_k": {
                        "sweep": [4, 8],
                        "dead_after_tokens": 10_000,
                        "threshold_start_step": 20,
                    },
                    "jump_relu": {"sweep": [8], "sparsity_warmup_steps": 20},
                    "standard_new": {"sweep": [0.05], "sparsity_warmup_steps": 20},
                },
                "suite": {
                    "layers": [bench_ground.LAYER],
                    "architectures": ["top_k", "jump_relu"],
                    "widths": ["512"],
                    "evaluations": ["dictionary_learning", *WITHOUT_JUDGE],
                },
            }
        },
        "texts": {"words": {"folder": str(text), "evaluation_split": "validation"}},
        "widths": {"512": 512},
        "datasets": {
            name: {
                **{"hub": None, "folder": str(folder), "files": ["*"]},
                **({"split": None, "rows": None} if name == bench_ground.PILE else {}),
            }
            for name, folder in ground.data.items()
        },
    }


def _lay_out_text(folder: Path) -> None:
    draw = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    words = [word for letter in bench_ground.LETTERS for word in bench_ground.WORDS[letter]]
    for split, documents in (("train", 2_000), ("validation", 200)):
        lines = [
            json.dumps({"text": "".join(f" {draw.choice(words)}" for _ in range(28))})
            for _ in range(documents)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
