"""Fits the principal components that SAEs are compared with."""

import torch
from safetensors.torch import save

from saemake.activations.dropping import Dropping
from saemake.base import devices, progress
from saemake.llm.model import LanguageModel, checked
from saemake.llm.weights import Weights
from saemake.recipes.kinds import BaselinesRecipe
from saemake.text.shards import Tokens


def fit(weights: Weights, tokens: Tokens, recipe: BaselinesRecipe) -> bytes:
    """Safetensors in float32: the mean [D] of the activations, their principal components
    [D, D] by falling variance, and the variances [D]. The activations are those of the first
    `pca_tokens` tokens of the training text that the recipe does not drop, rounded up to whole
    batches. Sums and the decomposition are in float64.

    Raises SaemakeError if activations are not finite.
    """
    device = devices.choose(recipe.cpu_threads)
    lm = LanguageModel(weights, recipe.hookpoint, device, whole=False)
    label = f"baselines {weights.name}/{recipe.hookpoint}"
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
    return save(  # without metadata, whose order in the file changes from call to call
        {
            "mean": mean_D.float().cpu(),
            "components": directions_DD.T.flip(0).float().contiguous(),
            "variances": variances_D.flip(0).float().contiguous(),
        }
    )
