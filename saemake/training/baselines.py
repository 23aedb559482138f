"""Fit the principal components that SAEs are compared with."""

import torch
from safetensors.torch import save

from saemake.activations.dropping import Dropping
from saemake.base import devices, progress
from saemake.llm.model import LanguageModel, checked
from saemake.llm.weights import Weights
from saemake.recipes import BaselinesRecipe
from saemake.text.shards import Tokens


def fit(weights: Weights, tokens: Tokens, recipe: BaselinesRecipe) -> bytes:
    """The mean [D], the principal components [D, D], by falling variance, and their variances [D]
    of the layer's activations on the first `pca_tokens` of the training text that the recipe does
    not drop, whole batches, as safetensors in float32. Sums and the decomposition are in float64.

    Raises SaemakeError where activations are not finite.
    """
    device = devices.choose(recipe.cpu_threads)
    lm = LanguageModel(weights, recipe.layer, device, whole=False)
    label = f"baselines {weights.name}/L{recipe.layer}"
    sum_D = torch.zeros(lm.d_model, dtype=torch.float64, device=device)
    products_DD = torch.zeros(lm.d_model, lm.d_model, dtype=torch.float64, device=device)
    count, dropping = 0, Dropping.of(recipe.drop, tokens)
    with progress.bar(min(recipe.pca_tokens, tokens.count), label, "tok") as bar:
        for contexts in tokens.contexts(recipe.llm_batch_contexts):
            hidden_BLD = lm.capture(contexts)
            kept_BL = dropping.kept(contexts, hidden_BLD).to(device)
            x_ND = checked(hidden_BLD[kept_BL], label, lm).double()
            sum_D += x_ND.sum(dim=0)
            products_DD += x_ND.T @ x_ND
            count += len(x_ND)
            bar.update(len(x_ND))
            if count >= recipe.pca_tokens:
                break
    mean_D = sum_D / count
    covariance_DD = products_DD / count - torch.outer(mean_D, mean_D)
    variances_D, directions_DD = torch.linalg.eigh(covariance_DD.cpu())
    return save(  # no metadata: safetensors writes it in an order of its own each time
        {
            "mean": mean_D.float().cpu(),
            "components": directions_DD.T.flip(0).float().contiguous(),
            "variances": variances_D.flip(0).float().contiguous(),
        }
    )
