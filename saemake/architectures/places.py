"""Places in a batch, and products over these places only. A place is one latent of one token.

Few latents of a batch are active; the others have neither a value nor a gradient. So a step encodes
without a graph (encoding.py), chooses places (choosing.py), and then works, forward and backward,
with the values at these places. `Listed` stores the values as a list, `Masked` as a matrix that is
0 elsewhere, which is faster when many latents are active. `Positive` is such a matrix that kernels
made. Code that uses the methods of `Places` works with all.

Shapes: B activations in a batch, R activations in a part, D the model's width, F latents. P places
are [N] in a list and [B, F] in a matrix; M is some of N. Products are computed in the dtype of the
encoding, sums in float32.
"""

import abc
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from saemake.architectures import products

# On a CPU a list is faster if at most one latent in so many is active (docs/benchmarks.md). On a
# GPU a step would have to wait for the list's length, and dense products are cheap.
LISTED_OF = {torch.float32: 10, torch.bfloat16: 12}
# Few places (at most one latent in so many): one float32 dot product each. Many: compute the dense
# product, in the dtype of the encoding, and select from it.
ALONE_OF = {torch.float32: 16, torch.bfloat16: 40}


class Places(abc.ABC):
    """Places in a batch of B tokens with F latents each."""

    tokens: int
    width: int

    @abc.abstractmethod
    def only(self, values_P: Tensor) -> Tensor:
        """The values, with 0 where a matrix has no place."""

    @abc.abstractmethod
    def count(self, flags_P: Tensor | None = None) -> Tensor:
        """How many places of each latent have their flag set (None: how many places it has);
        float32 [F]."""

    @abc.abstractmethod
    def of_latents(self, each_F: Tensor) -> Tensor:
        """Each place's entry of `each_F`, that of its latent, in a shape for arithmetic with values
        at places."""

    @abc.abstractmethod
    def of_tokens(self, each_B: Tensor) -> Tensor:
        """The same of `each_B`: each place's entry is that of its token."""

    @abc.abstractmethod
    def by_latent(self, values_P: Tensor) -> Tensor:
        """The sum of the values over the places of each latent; float32 [F]."""

    @abc.abstractmethod
    def by_token(self, values_P: Tensor) -> Tensor:
        """The sum of the values over the places of each token; float32 [B]."""

    @abc.abstractmethod
    def least_by_token(self, values_P: Tensor) -> Tensor:
        """The smallest value over the places of each token [B]; infinite for a token without
        places."""

    @abc.abstractmethod
    def latents(self) -> Tensor:
        """Whether each latent has a place; bool [F]."""

    def active(self, values_P: Tensor) -> Tensor:
        """Whether each latent has a value other than 0 somewhere; bool [F]."""
        return self.count(values_P != 0) > 0

    def smallest_by_token(self, values_P: Tensor) -> Tensor:
        """The size of each token's smallest value other than 0; float32 [B], infinite for a token
        without one."""
        return self.least_by_token(values_P.float().abs().masked_fill(values_P == 0, torch.inf))

    def smallest(self, values_P: Tensor) -> Tensor:
        """The size of the smallest value other than 0; float32 scalar, infinite without one."""
        return values_P.float().abs().masked_fill(values_P == 0, torch.inf).min()

    def fired(self, values_P: Tensor) -> Tensor:
        """Whether each latent has a value above 0 somewhere; bool [F]."""
        return self.count(values_P > 0) > 0

    def total(self, values_P: Tensor) -> Tensor:
        """The sum of all values; float32 scalar."""
        return values_P.sum(dtype=torch.float32)

    @abc.abstractmethod
    def decode(self, values_P: Tensor, rows_FD: Tensor, copy_FD: Tensor | None = None) -> Tensor:
        """For each token, the sum over its places of the value times the latent's row; [B, D], in
        the dtype of the encoding. `copy_FD` are the rows in this dtype, if there is a copy."""

    @abc.abstractmethod
    def outer(self, values_P: Tensor, rows_BD: Tensor) -> Tensor:
        """For each latent, the sum over its places of the value times the token's row; float32
        [F, D]."""

    def detached(self, values_P: Tensor) -> "Places":
        """The places of a step's values without its graphs."""
        return self

    def split(self, values_P: Tensor, sizes: Sequence[int]) -> list[tuple["Places", Tensor]]:
        """The places and values of the first sizes[0] latents, of the next sizes[1], and so on.
        Raises NotImplementedError where places have no such parts."""
        raise NotImplementedError(f"{type(self).__name__} cannot be split by latents")


class Masked(Places):
    """The places where a mask [B, F] is True. Values are a matrix [B, F]."""

    def __init__(self, mask_BF: Tensor, dtype: torch.dtype) -> None:
        self.mask_BF, self.dtype = mask_BF, dtype
        self.tokens, self.width = mask_BF.shape

    @functools.cached_property
    def _elsewhere(self) -> Tensor:
        return ~self.mask_BF

    def only(self, values_P: Tensor) -> Tensor:
        return values_P.masked_fill(self._elsewhere, 0)

    def count(self, flags_P: Tensor | None = None) -> Tensor:
        counted_BF = self.mask_BF if flags_P is None else flags_P & self.mask_BF
        return counted_BF.sum(dim=0, dtype=torch.float32)

    def of_latents(self, each_F: Tensor) -> Tensor:
        return each_F

    def of_tokens(self, each_B: Tensor) -> Tensor:
        return each_B[:, None]

    def by_latent(self, values_P: Tensor) -> Tensor:
        return values_P.sum(dim=0, dtype=torch.float32)

    def by_token(self, values_P: Tensor) -> Tensor:
        return values_P.sum(dim=1, dtype=torch.float32)

    def least_by_token(self, values_P: Tensor) -> Tensor:
        return values_P.masked_fill(self._elsewhere, torch.inf).amin(dim=1)

    def latents(self) -> Tensor:
        return self.mask_BF.any(dim=0)

    def decode(self, values_P: Tensor, rows_FD: Tensor, copy_FD: Tensor | None = None) -> Tensor:
        if copy_FD is not None:
            return _Product.apply(values_P.to(self.dtype), rows_FD, copy_FD)
        return values_P.to(self.dtype) @ rows_FD.to(self.dtype)

    def outer(self, values_P: Tensor, rows_BD: Tensor) -> Tensor:
        values_P, rows_BD = values_P.to(self.dtype), rows_BD.to(self.dtype)
        if rows_BD.device.type != "cpu":
            return products.in_float32(values_P.T, rows_BD)
        return products.in_parts(
            lambda first, end: values_P[:, first:end].T @ rows_BD, self.width, rows_BD
        )

    def split(self, values_P: Tensor, sizes: Sequence[int]) -> list[tuple[Places, Tensor]]:
        masks, values = self.mask_BF.split(sizes, dim=1), values_P.split(sizes, dim=1)
        return [(Masked(m, self.dtype), v) for m, v in zip(masks, values, strict=True)]


class Positive(Masked):
    """The places where a matrix of values [B, F] is not 0, on a GPU. A kernel made the values, and
    found what the step needs of them: which latents have a place (bool [F]), the smallest value of
    each token (float32 [B], infinite for a token without), the sum of each latent's values (float32
    [F]), the sums of values**p for two exponents p (float32 [2]), and which latents fire where the
    values are not the latents (bool [F])."""

    def __init__(
        self,
        values_BF: Tensor,
        latents_F: Tensor | None = None,
        *,
        smallest_B: Tensor | None = None,
        sums_F: Tensor | None = None,
        power_sums: Tensor | None = None,
        fired_F: Tensor | None = None,
    ) -> None:
        self.values_BF, self.dtype = values_BF, values_BF.dtype
        self.tokens, self.width = values_BF.shape
        self.latents_F, self.smallest_B = latents_F, smallest_B
        self.sums_F, self.power_sums, self.fired_F = sums_F, power_sums, fired_F

    @functools.cached_property
    def mask_BF(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        return self.values_BF.detach() != 0

    def latents(self) -> Tensor:
        return super().latents() if self.latents_F is None else self.latents_F

    def active(self, values_P: Tensor) -> Tensor:
        if self.latents_F is not None and values_P is self.values_BF:
            return self.latents_F
        return super().active(values_P)

    def fired(self, values_P: Tensor) -> Tensor:
        return super().fired(values_P) if self.fired_F is None else self.fired_F

    def smallest_by_token(self, values_P: Tensor) -> Tensor:
        return super().smallest_by_token(values_P) if self.smallest_B is None else self.smallest_B

    def smallest(self, values_P: Tensor) -> Tensor:
        return self.smallest_by_token(values_P).min()

    def by_latent(self, values_P: Tensor) -> Tensor:
        if self.sums_F is not None and values_P is self.values_BF:
            return self.sums_F
        return super().by_latent(values_P)

    def total(self, values_P: Tensor) -> Tensor:
        return self.by_latent(values_P).sum()

    def split(self, values_P: Tensor, sizes: Sequence[int]) -> list[tuple[Places, Tensor]]:
        own, values = self.values_BF.split(sizes, dim=1), values_P.split(sizes, dim=1)
        return [(Positive(o), v) for o, v in zip(own, values, strict=True)]

    def detached(self, values_P: Tensor) -> "Positive":
        return Positive(values_P)


class Listed(Places):
    """A list of places, token after token: the latent of each place (int64 [N]), and the index of
    each token's first place (int64 [B]). Values are a vector [N]."""

    def __init__(self, latents_N: Tensor, starts_B: Tensor, width: int, dtype: torch.dtype) -> None:
        self.latents_N, self.starts_B, self.dtype = latents_N, starts_B, dtype
        self.tokens, self.width = len(starts_B), width
        self.ends_B = torch.cat([starts_B[1:], starts_B.new_tensor([len(latents_N)])])
        tokens_B = torch.arange(self.tokens, device=starts_B.device)
        self.tokens_N = tokens_B.repeat_interleave(self.ends_B - starts_B)

    @functools.cached_property
    def _latent_after_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """The order that sorts the places by latent [N], the tokens in this order [N], and the
        index of each latent's first place in it [F]."""
        order_N = self.latents_N.int().argsort(stable=True)
        starts_F = starts_of(self.latents_N.bincount(minlength=self.width))
        return order_N, self.tokens_N.index_select(0, order_N), starts_F

    def only(self, values_P: Tensor) -> Tensor:
        return values_P

    def count(self, flags_P: Tensor | None = None) -> Tensor:
        counted_N = self.latents_N if flags_P is None else self.latents_N[flags_P]
        return counted_N.bincount(minlength=self.width).float()

    def of_latents(self, each_F: Tensor) -> Tensor:
        return each_F.index_select(0, self.latents_N)

    def of_tokens(self, each_B: Tensor) -> Tensor:
        return each_B.index_select(0, self.tokens_N)

    def by_latent(self, values_P: Tensor) -> Tensor:
        zeros_F = values_P.new_zeros(self.width, dtype=torch.float32)
        return zeros_F.index_add(0, self.latents_N, values_P.float())

    def by_token(self, values_P: Tensor) -> Tensor:
        zeros_B = values_P.new_zeros(self.tokens, dtype=torch.float32)
        return zeros_B.index_add(0, self.tokens_N, values_P.float())

    def least_by_token(self, values_P: Tensor) -> Tensor:
        infinite_B = values_P.new_full((self.tokens,), torch.inf)
        return infinite_B.scatter_reduce(0, self.tokens_N, values_P, "amin")

    def latents(self) -> Tensor:
        false_F = self.latents_N.new_zeros(self.width, dtype=torch.bool)
        return false_F.index_fill(0, self.latents_N, True)

    def decode(self, values_P: Tensor, rows_FD: Tensor, copy_FD: Tensor | None = None) -> Tensor:
        return _Decoded.apply(values_P, rows_FD, self)

    def outer(self, values_P: Tensor, rows_BD: Tensor) -> Tensor:
        order_N, tokens_N, starts_F = self._latent_after_latent
        values_N = values_P.to(self.dtype).index_select(0, order_N)
        bounds = torch.cat([starts_F, starts_F.new_tensor([len(values_N)])])
        rows_BD = rows_BD.to(self.dtype)

        def rows_between(first: int, end: int) -> Tensor:
            part = slice(int(bounds[first]), int(bounds[end]))
            starts = starts_F[first:end] - part.start
            return _bags(tokens_N[part], starts, values_N[part], rows_BD)

        return products.in_parts(rows_between, self.width, rows_BD)

    def row_products(self, rows_BD: Tensor, rows_FD: Tensor) -> Tensor:
        """The dot product of the token's row and the latent's row at each place (see ALONE_OF);
        float32 [N]."""
        if len(self.latents_N) * ALONE_OF[self.dtype] > self.tokens * self.width:
            return self._products_of_all(rows_BD.to(self.dtype), rows_FD.to(self.dtype))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")
            pattern_BF = torch.sparse_csr_tensor(
                torch.cat([self.starts_B[:1], self.ends_B]),
                self.latents_N,
                rows_BD.new_zeros(len(self.latents_N), dtype=torch.float32),
                (self.tokens, self.width),
                check_invariants=False,
            )
        products_BF = torch.sparse.sampled_addmm(pattern_BF, rows_BD.float(), rows_FD.T, beta=0)
        return products_BF.values()

    def _products_of_all(self, rows_BD: Tensor, rows_FD: Tensor) -> Tensor:
        """The same, selected from the dense product, which is computed for some tokens at a
        time."""
        linear, selected, first = products.linear(rows_FD, None), [], 0
        for rows_RD in rows_BD.split(products.part_tokens(self.width, self.dtype)):
            start = int(self.starts_B[first])
            end = int(self.ends_B[first + len(rows_RD) - 1])
            flat_M = (self.tokens_N[start:end] - first) * self.width + self.latents_N[start:end]
            selected.append(linear(rows_RD).flatten().index_select(0, flat_M))
            first += len(rows_RD)
        return torch.cat(selected).float()

    def split(self, values_P: Tensor, sizes: Sequence[int]) -> list[tuple[Places, Tensor]]:
        parts: list[tuple[Places, Tensor]] = []
        first = 0
        for size in sizes:
            inside_N = (self.latents_N >= first) & (self.latents_N < first + size)
            chosen_M = inside_N.nonzero().squeeze(1)
            counts_B = self.tokens_N[chosen_M].bincount(minlength=self.tokens)
            latents_M = self.latents_N[chosen_M] - first
            part = Listed(latents_M, starts_of(counts_B), size, self.dtype)
            parts.append((part, values_P.index_select(0, chosen_M)))
            first += size
        return parts


def most_listed(entries: int, dtype: torch.dtype, device: torch.device) -> int:
    """The largest number of places for which a list is faster than a matrix with `entries` entries;
    0 on other devices than a CPU."""
    return entries // LISTED_OF[dtype] if device.type == "cpu" else 0


def starts_of(counts: Tensor) -> Tensor:
    """The index of each group's first element, for adjacent groups with these counts."""
    return counts.cumsum(0) - counts


def sum_of_rows(rows_ND: Tensor, latents_N: Tensor, width: int) -> Tensor:
    """For each latent, the sum of the rows that are its (int64 [N]); [F, D]. The order of the terms
    is fixed, also on a GPU."""
    sorted_N, order_N = latents_N.sort(stable=True)
    starts_F = torch.searchsorted(sorted_N, torch.arange(width, device=sorted_N.device))
    return functional.embedding_bag(order_N, rows_ND, starts_F, mode="sum")


def _bags(indices_N: Tensor, starts: Tensor, weights_N: Tensor, rows: Tensor) -> Tensor:
    """Weighted sums of rows: one sum over the indices from each start to the next."""
    return functional.embedding_bag(
        indices_N, rows, starts, mode="sum", per_sample_weights=weights_N
    )


class _Product(torch.autograd.Function):
    """A dense product with rows of which there is a copy in the dtype of the values. The rows'
    gradient is float32."""

    @staticmethod
    def forward(ctx: Any, values_BF: Tensor, rows_FD: Tensor, copy_FD: Tensor) -> Tensor:
        ctx.save_for_backward(values_BF, copy_FD)
        return values_BF @ copy_FD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (gradient_BD,) = gradients
        values_BF, copy_FD = ctx.saved_tensors
        gradient_BD = gradient_BD.to(values_BF.dtype)
        rows_gradient_FD = None
        if ctx.needs_input_grad[1]:
            rows_gradient_FD = products.in_float32(values_BF.T, gradient_BD)
        return gradient_BD @ copy_FD.T, rows_gradient_FD, None


class _Decoded(torch.autograd.Function):
    """Listed.decode with its gradients."""

    @staticmethod
    def forward(ctx: Any, values_N: Tensor, rows_FD: Tensor, places: Listed) -> Tensor:
        ctx.save_for_backward(values_N, rows_FD)
        ctx.places = places
        values_N, rows_FD = values_N.to(places.dtype), rows_FD.to(places.dtype)
        return _bags(places.latents_N, places.starts_B, values_N, rows_FD)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (gradient_BD,) = gradients
        values_N, rows_FD = ctx.saved_tensors
        places, rows_need_gradient = ctx.places, ctx.needs_input_grad[1]
        rows_gradient_FD = places.outer(values_N, gradient_BD) if rows_need_gradient else None
        return places.row_products(gradient_BD, rows_FD), rows_gradient_FD, None
