"""Evaluation of a sweep: one run of the LM over held-out text judges every SAE of it.

Each document is one context, as in training; all tokens but padding count. The LM runs up to the
layer once; what the SAEs change is only what comes after.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from saemake import devices, progress
from saemake.errors import SaemakeError
from saemake.evaluation.metrics import Mean, SaeMetrics, Variance
from saemake.llm.model import LanguageModel
from saemake.llm.weights import Weights
from saemake.names import SaeName
from saemake.recipes import EvaluationRecipe, digest
from saemake.store import Store, sha256
from saemake.text.shards import Tokens
from saemake.training import files

log = logging.getLogger(__name__)
METRICS = "metrics.json"
RECIPE = "recipe.json"
TOKENS_AT_ONCE = 4096
# How far from the L0 that it was asked for an SAE may land without a warning, as a fraction.
L0_TOLERANCE = 0.15


class Codec(Protocol):
    """What an evaluation asks of an SAE."""

    width: int

    def encode(self, x: Tensor) -> Tensor: ...
    def decode(self, f: Tensor) -> Tensor: ...


def evaluate_sweep(
    recipes: Mapping[SaeName, EvaluationRecipe],
    *,
    width: int,
    folders: Mapping[SaeName, Path],
    weights: Weights,
    tokens: Tokens,
    store: Store,
) -> dict[SaeName, str]:
    """Put the metrics of every SAE of a sweep into the store, computing those that it lacks, and
    return their keys there: the evaluation's recipe with the SAE's very bytes.
    """
    sums = {name: _checked_sum(folders[name], recipe.sae) for name, recipe in recipes.items()}
    keys = {name: key_of(recipe.hash, sums[name]) for name, recipe in recipes.items()}
    with store.lock(keys.values()):
        missing = [name for name, key in keys.items() if not store.has(key)]
        log.info("%d of %d evaluations are missing", len(missing), len(keys))
        if missing:
            recipe = recipes[missing[0]]
            tokens.check(recipe.tokens.hash)
            device = devices.choose(recipe.cpu_threads)
            sweep = missing[0].sweep
            saes = {
                name: files.load(
                    folders[name], sweep.architecture, width, device, recipes[name].inference
                )
                for name in missing
            }
            lm = LanguageModel(weights, sweep.layer, device, whole=True)
            results = evaluate(
                saes, lm, tokens, recipe.llm_batch_contexts, label=f"evaluate {sweep}"
            )
            for name, result in results.items():
                content = {
                    **result,
                    "warnings": warnings(recipes[name], result["l0"]),
                    **_circumstances(recipes[name], sums[name], tokens),
                }
                made_by = _json(recipes[name].model_dump(mode="json"))
                store.put(keys[name], {METRICS: _json(content), RECIPE: made_by})
    return keys


def key_of(recipe_hash: str, sae_sha256: str) -> str:
    """What names an evaluation in the store: its recipe with the SAE's very bytes."""
    return digest([recipe_hash, sae_sha256])


def judged_sae(store: Store, key: str) -> str | None:
    """The recipe hash of the SAE that a stored evaluation judges; None where it cannot be read."""
    try:
        return json.loads(store.read(key, RECIPE))["sae"]
    except (OSError, ValueError, KeyError):
        return None


def _checked_sum(folder: Path, recipe_hash: str) -> str:
    """sha256 of an SAE's ae.pt; SaemakeError where it is not what its provenance says, or was made
    by another recipe."""
    path = folder / "ae.pt"
    found, provenance = sha256(path), files.read_provenance(folder)
    way_out = f"delete {folder} and run the same command again"
    if found != provenance["ae_sha256"]:
        raise SaemakeError(
            f"{path}: damaged, its sha256 is not that of its provenance.json; {way_out}"
        )
    if provenance["recipe_hash"] != recipe_hash:
        raise SaemakeError(f"{path}: made by another recipe than the config's; {way_out}")
    return found


@torch.no_grad()
def evaluate(
    saes: Mapping[Any, Codec], lm: LanguageModel, tokens: Tokens, batch_contexts: int, label: str
) -> dict[Any, dict[str, float]]:
    """The figures of each SAE on `tokens` (see SaeMetrics.results)."""
    clean, ablated = Mean(), Mean()
    variance = Variance(lm.d_model, lm.device)
    running = {n: SaeMetrics(lm.d_model, sae.width, lm.device) for n, sae in saes.items()}
    with progress.bar(tokens.count, label, "tok") as bar:
        for contexts in tokens.contexts(batch_contexts):
            hidden_BLD, clean_losses = lm.capture_with_losses(contexts)
            clean.add(clean_losses)
            ablated.add(lm.losses(contexts, torch.zeros_like(hidden_BLD)))
            kept_BL = contexts.mask.bool().to(lm.device)
            x_ND = hidden_BLD[kept_BL].float()
            if not x_ND.isfinite().all():
                raise SaemakeError(
                    f"{label}: the LM's activations are not finite (dtype {lm.dtype})"
                )
            variance.add(x_ND)
            for name, sae in saes.items():
                x_hat_ND = _reconstruct(sae, x_ND, running[name])
                spliced_BLD = hidden_BLD.clone()
                spliced_BLD[kept_BL] = x_hat_ND.to(hidden_BLD.dtype)
                running[name].loss.add(lm.losses(contexts, spliced_BLD))
            bar.update(contexts.tokens)
    return {
        name: metrics.results(clean.value, ablated.value, variance.value)
        for name, metrics in running.items()
    }


def _reconstruct(sae: Codec, x_ND: Tensor, running: SaeMetrics) -> Tensor:
    """Reconstructions [N, D] of activations, a part at a time: latents [N, F] of a large batch and
    dictionary would fill the memory. Adds what the latents say to `running`."""
    parts = []
    for x_PD in x_ND.split(TOKENS_AT_ONCE):
        f_PF = sae.encode(x_PD)
        x_hat_PD = sae.decode(f_PF)
        running.add(x_PD, f_PF, x_hat_PD)
        parts.append(x_hat_PD)
    return torch.cat(parts)


def warnings(recipe: EvaluationRecipe, l0: float) -> list[str]:
    """What a reader of the figures should know: an L0 that missed what the sparsity asked for."""
    target = recipe.target_l0
    if target is None or abs(l0 / target - 1) <= L0_TOLERANCE:
        return []
    return [
        f"L0 {l0:.4g} is {abs(l0 / target - 1):.0%} {'over' if l0 > target else 'under'} the target"
        f" {target:g}; a longer training brings it closer"
    ]


def _circumstances(recipe: EvaluationRecipe, sae_sha256: str, tokens: Tokens) -> dict[str, Any]:
    return {
        "evaluation": {
            "recipe_hash": recipe.hash,
            "inference": recipe.inference,
            "split": recipe.tokens.split,
            "documents": tokens.manifest["documents"],
            "tokens": tokens.count,
            "context_tokens": recipe.tokens.context_tokens,
        },
        "sae_sha256": sae_sha256,
    }


def named(name: SaeName, width: int, stored: bytes) -> bytes:
    """metrics.json: a stored evaluation with the SAE's name in front. The store holds no names: one
    recipe may have several."""
    sweep = name.sweep
    content = {
        "name": str(name),
        "model": sweep.model,
        "layer": sweep.layer,
        "architecture": sweep.architecture,
        "width": sweep.width,
        "latents": width,
        "sparsity": name.sparsity_name,
        **json.loads(stored),
    }
    return _json(content)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
