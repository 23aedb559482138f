"""The baselines of SAEs: the identity, and principal components, all of them or the first k."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from saemake.base.errors import SaemakeError
from saemake.base.onednn import linear
from saemake.evaluation.components import components_count

FILE = "pca.safetensors"
# The file beside it in the store, with the recipe by which it was fitted.
RECIPE = "recipe.json"


class Linear:
    """A codec of orthonormal directions (rows [F, D]) around a mean [D]. Its latents have signs,
    but only positive ones count as firing, as in SAE Bench."""

    negative_fires = False
    transcodes = False

    def __init__(self, directions_FD: Tensor, mean_D: Tensor) -> None:
        self.encoder_weight = self.decoder_rows = directions_FD
        self.encoder_bias = directions_FD.new_zeros(len(directions_FD))
        self.mean_D = mean_D
        self.width, self.d_model = directions_FD.shape
        self.tokens_apart = True

    def encode(self, x: Tensor) -> Tensor:
        return linear(x - self.mean_D, self.encoder_weight, None)

    def listed(self, x_RD: Tensor) -> None:
        """None: no latents are listed, all are decoded."""

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.decoder_rows + self.mean_D

    def skipped(self, x: Tensor) -> None:
        """None: there is no skip connection."""


def load_codec(path: Path, name: str, device: torch.device) -> Linear:
    """The baseline `name` (see recipes.baseline_names), from a file of training.baselines.fit.

    Raises SaemakeError if the file is damaged.
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
