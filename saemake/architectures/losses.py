"""Pure loss functions. All take any float dtype and compute in float32, so that autocast cannot
round a loss.

Shapes: B activations in a batch, D the model's width, F latents, P places (see places.py).
"""

import torch
from torch import Tensor

from saemake.architectures.places import Places


def reconstruction(x_BD: Tensor, x_hat_BD: Tensor) -> Tensor:
    """Squared error summed over D, mean over B; float32 scalar."""
    return (x_BD.float() - x_hat_BD.float()).pow(2).sum(dim=-1).mean()


def decoder_weighted_l1(f_P: Tensor, places: Places, norms_F: Tensor) -> Tensor:
    """Sum over F of activation times the norm of its decoder row (float32 [F]), mean over B;
    float32 scalar.

    The sparsity penalty of https://transformer-circuits.pub/2024/april-update.
    """
    return (places.by_latent(f_P) * norms_F).sum() / places.tokens


def decoder_weighted_tanh(f_P: Tensor, places: Places, norms_F: Tensor, scale: float) -> Tensor:
    """Sum over F of tanh(scale * activation * norm of its decoder row), mean over B; float32
    scalar. `norms_F` are the norms, float32 [F]. Activations are not negative.

    The sparsity penalty of https://transformer-circuits.pub/2025/january-update.
    """
    weighted_P = scale * f_P.float() * places.of_latents(norms_F)
    return places.total(weighted_P.tanh()) / places.tokens


def l1(f_P: Tensor, places: Places) -> Tensor:
    """Sum over F of the (non-negative) activations, mean over B; float32 scalar."""
    return places.total(f_P) / places.tokens


def lp_to_the_p(f_P: Tensor, places: Places, p: float | Tensor) -> Tensor:
    """Sum over F of activation^p, mean over B; float32 scalar. `Lp^p` of
    https://arxiv.org/abs/2408.00113. For p < 1 the gradient at an activation of 0 is infinite; it
    is dropped, because an activation of 0 is at no place.
    """
    return f_P.float().pow(p).sum() / places.tokens


def lp(f_P: Tensor, places: Places, p: float | Tensor) -> Tensor:
    """The Lp norm over F, mean over B; float32 scalar. `Lp` of https://arxiv.org/abs/2408.00113."""
    return places.by_token(f_P.float().pow(p)).pow(1 / p).mean()


def auxk_over_variance(
    x_hat_aux_BD: Tensor, x_hat_BD: Tensor, x_BD: Tensor, scale: float | Tensor
) -> Tensor:
    """AuxK error of January 2025's TopK: the squared error of decode(aux) against x_hat - x. Each
    dimension is divided by the batch's sum of squared distances from its mean in that dimension.
    Mean over B and D, times `scale`; float32 scalar. dictionary_learning took it from EleutherAI's
    sparsify.
    """
    x_BD = x_BD.float()
    error_BD = (x_hat_aux_BD.float() - (x_hat_BD.float() - x_BD)).pow(2)
    spread_D = (x_BD - x_BD.mean(dim=0)).pow(2).sum(dim=0)
    if isinstance(scale, Tensor):
        # A scale of 0 must give 0 also where a dimension does not vary.
        spread_D = spread_D.where(scale > 0, 1.0)
    return scale * (error_BD / spread_D).mean()


def auxk_mean_squared(x_hat_aux_BD: Tensor, x_hat_BD: Tensor, x_BD: Tensor) -> Tensor:
    """AuxK error of January 2025's BatchTopK and Matryoshka: the squared error of the auxiliary
    reconstruction without bias against the residual, mean over B and D; float32 scalar. The
    gradient flows through the residual too.
    """
    residual_BD = x_BD.float() - x_hat_BD.float()
    return (x_hat_aux_BD.float() - residual_BD).pow(2).mean()


def auxk_over_residual(
    x_hat_aux_BD: Tensor, x_hat_BD: Tensor, x_BD: Tensor, due: Tensor | None = None
) -> Tensor:
    """AuxK error of release 0.1.0: the squared error of the auxiliary reconstruction without bias
    against the detached residual, divided by the residual's own squared distance from its mean.
    Both are summed over D and averaged over B. NaN (0 / 0) becomes 0; float32 scalar, 0
    where `due` (bool scalar) is False. After OpenAI's sparse_autoencoder.
    """
    residual_BD = (x_BD.float() - x_hat_BD.float()).detach()
    error = reconstruction(residual_BD, x_hat_aux_BD)
    spread = (residual_BD - residual_BD.mean(dim=0)).pow(2).sum(dim=-1).mean()
    if due is None:
        return (error / spread).nan_to_num(0.0)
    return (error / spread.where(due, 1.0)).nan_to_num(0.0) * due


@torch.no_grad()
def geometric_median(x_BD: Tensor, iterations: int = 100, tolerance: float = 1e-5) -> Tensor:
    """The point with the smallest sum of distances to the rows; float32 [D].

    Weiszfeld's algorithm, with which dictionary_learning starts the decoder's bias. A row that
    coincides with the guess gets a large finite weight instead of an infinite one.
    """
    x_BD = x_BD.float()
    guess_D = x_BD.mean(dim=0)
    for _ in range(iterations):
        before_D = guess_D
        weight_B = 1 / (x_BD - guess_D).norm(dim=1).clamp_min(torch.finfo(x_BD.dtype).tiny)
        weight_B = weight_B / weight_B.sum()
        guess_D = (weight_B[:, None] * x_BD).sum(dim=0)
        if (guess_D - before_D).norm() < tolerance:
            break
    return guess_D
