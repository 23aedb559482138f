"""A call of SAE Bench's `run_eval`, which all its evaluations have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from job import Job
from sae_bench.custom_saes.base_sae import BaseSAE


class UnjudgeableError(ValueError):
    """An SAE has no figures by this evaluation, and never will."""


class NoResultsError(Exception):
    """SAE Bench wrote no file."""


def results_of(
    run_eval: Callable[..., Any], config: Any, job: Job, sae: BaseSAE, **options: Any
) -> Path:
    """The file with the results of an SAE. Raises NoResultsError where SAE Bench writes none."""
    output = job.work / "results"
    output.mkdir(exist_ok=True)
    run_eval(
        config=config,
        selected_saes=[("sae", sae)],
        device=job.device,
        output_path=str(output),
        force_rerun=True,
        **options,
    )
    for path in output.rglob("*.json"):
        return path
    raise NoResultsError("SAE Bench wrote no results")
