"""What SAEs are compared with: the identity, and principal components, all or the first k."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from saemake import devices, progress
from saemake.activations.dropping import Dropping
from saemake.errors import SaemakeError
from saemake.llm.model import LanguageModel, checked
from saemake.llm.weights import Weights
from saemake.onednn import linear
from saemake.recipes import BaselinesRecipe
from saemake.text.shards import Tokens

FILE = "pca.safetensors"
# Beside it in the store, the recipe that it was fitted by.
RECIPE = "recipe.json"


class Linear:
    """A codec of orthonormal directions (rows [F, D]) around a mean [D]; latents have signs. Those
    that fire are counted as SAE Bench does, which takes all latents for positive."""

    negative_fires = False

    def __init__(self, directions_FD: Tensor, mean_D: Tensor) -> None:
        self.encoder_weight = self.decoder_rows = directions_FD
        self.encoder_bias = directions_FD.new_zeros(len(directions_FD))
        self.mean_D = mean_D
        self.width, self.d_model = directions_FD.shape
        self.tokens_apart = True

    def encode(self, x: Tensor) -> Tensor:
        return linear(x - self.mean_D, self.encoder_weight, None)

    def listed(self, x_RD: Tensor) -> None:
        """All are looked at."""

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.decoder_rows + self.mean_D


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


def load_codec(path: Path, name: str, device: torch.device) -> Linear:
    """The named baseline (see recipes.baseline_names) of a file that `fit` made.

    Raises SaemakeError where the file is damaged.
    """
    try:
        tensors = load(path.read_bytes())
        mean_D, components_DD = tensors["mean"], tensors["components"]
    except (OSError, SafetensorError, KeyError) as error:
        raise SaemakeError(
            f"{path}: cannot be read ({error}); delete it and run the same command again"
        ) from None
    if name == "identity":
        directions_FD, mean_D = torch.eye(len(mean_D)), torch.zeros_like(mean_D)
    else:
        k = components_count(name, len(mean_D))
        directions_FD = components_DD[:k]
    return Linear(directions_FD.to(device), mean_D.to(device))


def components_count(name: str, d_model: int) -> int:
    """How many directions a baseline has; never more than the model's width."""
    _, _, k = name.partition("/k_")
    return min(int(k), d_model) if k else d_model
