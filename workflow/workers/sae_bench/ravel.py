"""SAE Bench's RAVEL: whether an attribute of an entity can be changed and its others kept. Prompts
that the LM answers rightly are chosen apart from any SAE."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from calling import results_of
from job import Job, seed_everything
from sae_bench.custom_saes.base_sae import BaseSAE
from sae_bench.evals.ravel import main
from sae_bench.evals.ravel.eval_config import RAVELEvalConfig
from sae_bench.sae_bench_utils import activation_collection
from transformers import AutoModelForCausalLM

PROMPTS = "adamkarvonen/ravel_prompts"
RUN_ONE_ATTRIBUTE = main.run_eval_single_cause_attribute
GET_MODULE = activation_collection.get_module


class _PromptsAreChosenError(Exception):
    """Raised in place of judging."""


class TupleBlock:
    """A block of an LM whose hooks see a tuple of outputs, as transformers 4 gives it. From
    transformers 5 on it is a tensor."""

    def __init__(self, block: torch.nn.Module) -> None:
        self.block = block

    def register_forward_hook(self, hook: Callable[..., Any]) -> Any:
        def with_tuple(block: torch.nn.Module, inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return hook(block, inputs, output)
            changed = hook(block, inputs, (output,))
            return changed[0] if isinstance(changed, tuple) else changed

        return self.block.register_forward_hook(with_tuple)


def see_tuples() -> None:
    """Let all of RAVEL's hooks see tuples."""
    activation_collection.get_module = lambda lm, layer: TupleBlock(GET_MODULE(lm, layer))


def setup(job: Job) -> None:
    """The prompts of each kind of entity, from the seed. Raises ValueError for an LM that RAVEL
    does not know."""
    if job.model not in main.LLM_NAME_MAP:
        known = " and ".join(sorted(main.LLM_NAME_MAP))
        raise ValueError(f"RAVEL knows {known} only, not {job.model}")
    see_tuples()
    base = job.setup / "base"
    base.mkdir(parents=True, exist_ok=True)
    for path in job.data[PROMPTS].glob("*.json"):
        shutil.copy(path, base / path.name)
    config = _config(job)
    config.model_name = main.LLM_NAME_MAP[job.model]
    lm = AutoModelForCausalLM.from_pretrained(
        config.model_name,
        device_map=job.device,
        torch_dtype=job.dtype,
        **({"attn_implementation": "eager"} if "gemma" in job.model else {}),
    )
    main.run_eval_single_cause_attribute = _stop_before_judging
    for kind in config.entity_attribute_selection:
        seed_everything(job.seed)
        try:
            main.run_eval_single_dataset(kind, config, None, lm)
        except _PromptsAreChosenError:
            continue
    main.run_eval_single_cause_attribute = RUN_ONE_ATTRIBUTE


def judge(job: Job, sae: BaseSAE) -> Path:
    """The file with the results of an SAE."""
    see_tuples()
    artifacts = str(job.work / "artifacts")
    return results_of(main.run_eval, _config(job), job, sae, artifacts_path=artifacts)


def _stop_before_judging(*_: object) -> None:
    raise _PromptsAreChosenError


def _config(job: Job) -> RAVELEvalConfig:
    # A call overwrites the name of the model in its config.
    return RAVELEvalConfig(model_name=job.model, artifact_dir=str(job.setup), **job.settings)
