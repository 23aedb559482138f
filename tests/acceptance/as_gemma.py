"""Run by test_sae_bench_alone.py in the environment of sae-bench: another script, with a small
GPT-NeoX in place of the Gemma 2 that SAE Bench knows by name for unlearning, whose shape
TransformerLens has written down. A small random LM answers no question in all 24 orders: here each
question is taken to be one that the LM knows.

    python as_gemma.py SCRIPT ARGUMENTS
"""

import runpy
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from bench_names import CHAT, MODEL
from sae_bench.evals.unlearning.utils import metrics
from transformer_lens import HookedTransformer

load = HookedTransformer.from_pretrained_no_processing


def small(name: str, **options: Any) -> HookedTransformer:
    model = load(MODEL if name == CHAT else name, **options)
    model.cfg.model_name = name
    return model


def all_questions(answered: dict[str, Any]) -> Any:
    return np.arange(len(answered["is_correct"]) // 24)


HookedTransformer.from_pretrained_no_processing = small
metrics._find_all_permutation_correct_ans = all_questions
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
