"""The latents that a training step computes with, and products over them alone.

Of a batch's latents few are active, and nothing else has a value or a gradient. So a step encodes
without a graph, a part of the batch at a time, chooses places (a latent of a token), and from there
on, forward and backward, works with the values at these places: `Listed` as a list, `Masked` as a
matrix that is 0 elsewhere, where a list does not pay. What is written in values works with both.

Shapes: B activations in a batch, R of them in a part, D the model's width, F latents, S latents in
each of G groups, P places: [N] of a list, [B, F] of a matrix. Products are computed in the dtype
that was encoded in, sums in float32.
"""

import abc
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# A list pays on a CPU where at most one latent in so many is active (docs/benchmarks.md). On a GPU
# its length would have to be waited for, and dense products are cheap.
LISTED_OF = {torch.float32: 10, torch.bfloat16: 12}
# From so many inputs on oneDNN's float32 products are faster than those of torch's own choice, and
# at 128 slower; where between was not looked for.
ONEDNN_INPUTS = 512
# Of a list's products with rows each is computed by itself, in float32 for want of another, where
# it has at most one place in so many; else all that a matrix has, in the dtype of products, and the
# list's are taken from it.
ALONE_OF = {torch.float32: 16, torch.bfloat16: 40}
# Of a part of the batch: small enough that its memory is used again for the next, and so many
# tokens at least that its product is fast.
PART_BYTES, PART_TOKENS = 2**24, 256
# The largest group of latents that is looked at together for large ones.
GROUP = 16
# Of a part's tokens one in so many is looked at to guess a bound, for so much more than what is
# wanted; and so many tokens of a batch to guess how many latents are active.
SAMPLED, MARGIN = 8, 1.25
SAMPLED_TOKENS = 32


class Places(abc.ABC):
    """Places in a batch of B tokens with F latents each."""

    tokens: int
    width: int

    @abc.abstractmethod
    def only(self, values_P: Tensor) -> Tensor:
        """The values, and 0 where there is no place."""

    @abc.abstractmethod
    def count(self, flags_P: Tensor | None = None) -> Tensor:
        """Of each latent how many places have a flag (None: how many there are); float32 [F]."""

    @abc.abstractmethod
    def of_latents(self, each_F: Tensor) -> Tensor:
        """What each place's latent has, for arithmetic with values at places."""

    @abc.abstractmethod
    def by_latent(self, values_P: Tensor) -> Tensor:
        """Their sum over each latent's places, float32 [F]."""

    @abc.abstractmethod
    def by_token(self, values_P: Tensor) -> Tensor:
        """Their sum over each token's places, float32 [B]."""

    @abc.abstractmethod
    def least_by_token(self, values_P: Tensor) -> Tensor:
        """Their least over each token's places, [B]; infinite where there is none."""

    @abc.abstractmethod
    def latents(self) -> Tensor:
        """Which latents have a place, bool [F]."""

    @abc.abstractmethod
    def decode(self, values_P: Tensor, rows_FD: Tensor) -> Tensor:
        """The sum over each token's places of the value times the latent's row; [B, D]."""

    @abc.abstractmethod
    def outer(self, values_P: Tensor, rows_BD: Tensor) -> Tensor:
        """The sum over each latent's places of the value times the token's row; float32 [F, D]."""

    @abc.abstractmethod
    def split(self, values_P: Tensor, sizes: Sequence[int]) -> list[tuple["Places", Tensor]]:
        """The places and values of the first latents, the next, and so on."""


class Masked(Places):
    """All that are True in a mask [B, F]."""

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

    def by_latent(self, values_P: Tensor) -> Tensor:
        return values_P.sum(dim=0, dtype=torch.float32)

    def by_token(self, values_P: Tensor) -> Tensor:
        return values_P.sum(dim=1, dtype=torch.float32)

    def least_by_token(self, values_P: Tensor) -> Tensor:
        return values_P.masked_fill(self._elsewhere, torch.inf).amin(dim=1)

    def latents(self) -> Tensor:
        return self.mask_BF.any(dim=0)

    def decode(self, values_P: Tensor, rows_FD: Tensor) -> Tensor:
        return values_P.to(self.dtype) @ rows_FD.to(self.dtype)

    def outer(self, values_P: Tensor, rows_BD: Tensor) -> Tensor:
        values_P, rows_BD = values_P.to(self.dtype), rows_BD.to(self.dtype)
        return _in_parts(lambda first, end: values_P[:, first:end].T @ rows_BD, self.width, rows_BD)

    def split(self, values_P: Tensor, sizes: Sequence[int]) -> list[tuple[Places, Tensor]]:
        masks, values = self.mask_BF.split(sizes, dim=1), values_P.split(sizes, dim=1)
        return [(Masked(m, self.dtype), v) for m, v in zip(masks, values, strict=True)]


class Listed(Places):
    """A list, token after token: the latent of each place, and where each token's places begin."""

    def __init__(self, latents_N: Tensor, starts_B: Tensor, width: int, dtype: torch.dtype) -> None:
        self.latents_N, self.starts_B, self.dtype = latents_N, starts_B, dtype
        self.tokens, self.width = len(starts_B), width
        self.ends_B = torch.cat([starts_B[1:], starts_B.new_tensor([len(latents_N)])])
        tokens_B = torch.arange(self.tokens, device=starts_B.device)
        self.tokens_N = tokens_B.repeat_interleave(self.ends_B - starts_B)

    @functools.cached_property
    def _latent_after_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """The list's places in the order of their latents, their tokens in this order, and where
        each latent's begin."""
        order_N = self.latents_N.int().argsort(stable=True)
        starts_F = _starts(self.latents_N.bincount(minlength=self.width))
        return order_N, self.tokens_N.index_select(0, order_N), starts_F

    def only(self, values_P: Tensor) -> Tensor:
        return values_P

    def count(self, flags_P: Tensor | None = None) -> Tensor:
        counted_N = self.latents_N if flags_P is None else self.latents_N[flags_P]
        return counted_N.bincount(minlength=self.width).float()

    def of_latents(self, each_F: Tensor) -> Tensor:
        return each_F.index_select(0, self.latents_N)

    def by_latent(self, values_P: Tensor) -> Tensor:
        zeros_F = values_P.new_zeros(self.width, dtype=torch.float32)
        return zeros_F.index_add(0, self.latents_N, values_P.float())

    def by_token(self, values_P: Tensor) -> Tensor:
        zeros_B = values_P.new_zeros(self.tokens, dtype=torch.float32)
        return zeros_B.index_add(0, self.tokens_N, values_P.float())

    def least_by_token(self, values_P: Tensor) -> Tensor:
        none_B = values_P.new_full((self.tokens,), torch.inf)
        return none_B.scatter_reduce(0, self.tokens_N, values_P, "amin")

    def latents(self) -> Tensor:
        none_F = self.latents_N.new_zeros(self.width, dtype=torch.bool)
        return none_F.index_fill(0, self.latents_N, True)

    def decode(self, values_P: Tensor, rows_FD: Tensor) -> Tensor:
        return _Decoded.apply(values_P, rows_FD, self)

    def outer(self, values_P: Tensor, rows_BD: Tensor) -> Tensor:
        order_N, tokens_N, starts_F = self._latent_after_latent
        values_N = values_P.to(self.dtype).index_select(0, order_N)
        bounds = torch.cat([starts_F, starts_F.new_tensor([len(values_N)])])
        rows_BD = rows_BD.to(self.dtype)

        def some(first: int, end: int) -> Tensor:
            here = slice(int(bounds[first]), int(bounds[end]))
            starts = starts_F[first:end] - here.start
            return _bags(tokens_N[here], starts, values_N[here], rows_BD)

        return _in_parts(some, self.width, rows_BD)

    def products(self, rows_BD: Tensor, rows_FD: Tensor) -> Tensor:
        """At each place the product of the token's row and the latent's (see ALONE_OF); float32
        [N]."""
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
        """The same from whole rows of the matrix, a part of the tokens at a time."""
        linear, found, first = _linear(rows_FD, None), [], 0
        for rows_RD in rows_BD.split(_part_tokens(self.width, self.dtype)):
            start = int(self.starts_B[first])
            end = int(self.ends_B[first + len(rows_RD) - 1])
            flat_M = (self.tokens_N[start:end] - first) * self.width + self.latents_N[start:end]
            found.append(linear(rows_RD).flatten().index_select(0, flat_M))
            first += len(rows_RD)
        return torch.cat(found).float()

    def split(self, values_P: Tensor, sizes: Sequence[int]) -> list[tuple[Places, Tensor]]:
        parts: list[tuple[Places, Tensor]] = []
        first = 0
        for size in sizes:
            inside_N = (self.latents_N >= first) & (self.latents_N < first + size)
            chosen_M = inside_N.nonzero().squeeze(1)
            counts_B = self.tokens_N[chosen_M].bincount(minlength=self.tokens)
            latents_M = self.latents_N[chosen_M] - first
            part = Listed(latents_M, _starts(counts_B), size, self.dtype)
            parts.append((part, values_P.index_select(0, chosen_M)))
            first += size
        return parts


def _in_parts(some: Callable[[int, int], Tensor], width: int, rows_BD: Tensor) -> Tensor:
    """Of all latents, float32 [F, D], what `some` gives of those from one to before another. In
    bfloat16 it is made for some at a time, so that no whole copy in bfloat16 exists."""
    if rows_BD.dtype == torch.float32:
        return some(0, width)
    found_FD = rows_BD.new_empty(width, rows_BD.shape[1], dtype=torch.float32)
    at_once = max(PART_BYTES // (rows_BD.shape[1] * rows_BD.itemsize), 1)
    for first in range(0, width, at_once):
        end = min(first + at_once, width)
        found_FD[first:end] = some(first, end)
    return found_FD


def _starts(counts: Tensor) -> Tensor:
    return counts.cumsum(0) - counts


def _bags(indices_N: Tensor, starts: Tensor, weights_N: Tensor, rows: Tensor) -> Tensor:
    """Weighted sums of rows, one from each start to the next."""
    return functional.embedding_bag(
        indices_N, rows, starts, mode="sum", per_sample_weights=weights_N
    )


class _Decoded(torch.autograd.Function):
    """Values of a list times rows."""

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
        places, wanted = ctx.places, ctx.needs_input_grad[1]
        of_rows_FD = places.outer(values_N, gradient_BD) if wanted else None
        return places.products(gradient_BD, rows_FD), of_rows_FD, None


class Encoding:
    """All latents of a batch before any is dropped, (x - shift) @ weight.T + bias, as numbers; with
    gradients at the places that are chosen."""

    def __init__(
        self,
        x_BD: Tensor,
        weight_FD: Tensor,
        bias_F: Tensor | None,
        shift_D: Tensor | None,
        dtype: torch.dtype,
    ) -> None:
        self.weight_FD, self.bias_F, self.shift_D = weight_FD, bias_F, shift_D
        self.shape = torch.Size((len(x_BD), len(weight_FD)))
        self.dtype, self.device = dtype, x_BD.device
        with torch.no_grad():
            x_BD = x_BD.float() if shift_D is None else x_BD.float() - shift_D
            self.x_BD = x_BD.to(dtype)
            self._linear = _linear(
                weight_FD.to(dtype), None if bias_F is None else bias_F.to(dtype)
            )

    def lists(self, active: int) -> bool:
        """Whether a list of so many places is faster than a matrix."""
        return self.device.type == "cpu" and active * LISTED_OF[self.dtype] <= self.shape.numel()

    @torch.no_grad()
    def parts(self) -> Iterator[Tensor]:
        """The numbers [R, F] of some tokens after others."""
        for x_RD in self.x_BD.split(_part_tokens(self.shape[1], self.dtype)):
            yield self._linear(x_RD)

    @torch.no_grad()
    def of_some(self) -> Tensor:
        """The numbers [R, F] of a few tokens from all over the batch."""
        return self._linear(self.x_BD[:: max(len(self.x_BD) // SAMPLED_TOKENS, 1)])

    @torch.no_grad()
    def whole(self) -> Tensor:
        """The numbers of all tokens, [B, F]."""
        return self._linear(self.x_BD)

    def at(self, places: Places, values_P: Tensor) -> Tensor:
        """The numbers at places, with gradients; [P]."""
        return _EncodedAt.apply(self.weight_FD, self.bias_F, self.shift_D, self, places, values_P)

    def at_listed(self, flat_N: Tensor, values_N: Tensor) -> tuple[Places, Tensor]:
        """The list of places in the flattened matrix, those of a token side by side, and the
        numbers there."""
        tokens, width = self.shape
        tokens_N = flat_N.div(width, rounding_mode="floor")
        starts_B = _starts(tokens_N.bincount(minlength=tokens))
        places = Listed(flat_N - tokens_N * width, starts_B, width, self.dtype)
        return places, self.at(places, values_N.float())

    def at_masked(self, all_BF: Tensor, mask_BF: Tensor) -> tuple[Places, Tensor]:
        """The places of a mask and the numbers there."""
        places = Masked(mask_BF, self.dtype)
        return places, self.at(places, places.only(all_BF))


class _EncodedAt(torch.autograd.Function):
    """An encoding at places. The shift's gradient is that of the bias times the encoder, one vector
    and no matrix [B, D]."""

    @staticmethod
    def forward(
        ctx: Any,
        weight_FD: Tensor,
        bias_F: Tensor | None,
        shift_D: Tensor | None,
        encoding: Encoding,
        places: Places,
        values_P: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight_FD, encoding.x_BD)
        ctx.places = places
        return values_P.view_as(values_P)

    @staticmethod
    def backward(
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None, None, None]:
        weight_FD, x_BD = ctx.saved_tensors
        gradient_P = ctx.places.only(gradients[0])
        of_weight_FD = ctx.places.outer(gradient_P, x_BD)
        _, bias, shift, *_ = ctx.needs_input_grad
        of_bias_F = ctx.places.by_latent(gradient_P) if bias or shift else None
        of_shift_D = -(of_bias_F @ weight_FD) if shift else None
        return of_weight_FD, of_bias_F if bias else None, of_shift_D, None, None, None


def _part_tokens(width: int, dtype: torch.dtype) -> int:
    """How many of a batch's tokens are encoded together."""
    return max(PART_BYTES // (width * dtype.itemsize), PART_TOKENS)


def _linear(weight_FD: Tensor, bias_F: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x [R, D] to x @ weight.T + bias, in their dtype. On wide models in float32 on a CPU through
    oneDNN, which is faster there (docs/benchmarks.md) than what torch takes; in bfloat16 with the
    bias as one more input, since torch would first copy it to every token."""
    if weight_FD.device.type == "cpu":
        onednn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
        wide = weight_FD.shape[1] >= ONEDNN_INPUTS
        if onednn and wide and weight_FD.dtype == torch.float32:
            weight, bias = weight_FD.to_mkldnn(), None if bias_F is None else bias_F.to_mkldnn()
            return lambda x_RD: functional.linear(x_RD.to_mkldnn(), weight, bias).to_dense()
        if bias_F is not None and weight_FD.dtype == torch.bfloat16:
            both = torch.cat([weight_FD, bias_F[:, None]], dim=1)
            return lambda x_RD: functional.linear(functional.pad(x_RD, (0, 1), value=1.0), both)
    return lambda x_RD: functional.linear(x_RD, weight_FD, bias_F)


def top_of_each(encoding: Encoding, k: int) -> tuple[Places, Tensor]:
    """The k largest of each token."""
    tokens, width = encoding.shape
    if encoding.lists(tokens * k):
        found = [
            (at_Rk := top_indices(part_RF, k), part_RF.gather(1, at_Rk))
            for part_RF in encoding.parts()
        ]
        at_Bk, values_Bk = (torch.cat(side) for side in zip(*found, strict=True))
        starts_B = torch.arange(0, tokens * k, k, device=encoding.device)
        places = Listed(at_Bk.flatten(), starts_B, width, encoding.dtype)
        return places, encoding.at(places, values_Bk.flatten().float())
    all_BF = encoding.whole()
    mask_BF = torch.zeros_like(all_BF, dtype=torch.bool).scatter(1, top_indices(all_BF, k), True)
    return encoding.at_masked(all_BF, mask_BF)


def top_of_batch(encoding: Encoding, count: int) -> tuple[Places, Tensor]:
    """The `count` largest of the batch."""
    if encoding.lists(count) and (found := _over_a_guess(encoding, count)):
        flat_N, values_N = found
        best_N = values_N.topk(count, sorted=False).indices.sort().values
        return encoding.at_listed(flat_N[best_N], values_N[best_N])
    all_BF = encoding.whole()
    best_N = all_BF.flatten().topk(count, sorted=False).indices
    if encoding.lists(count):
        flat_N = best_N.sort().values
        return encoding.at_listed(flat_N, all_BF.flatten()[flat_N])
    mask = torch.zeros(all_BF.numel(), dtype=torch.bool, device=all_BF.device)
    return encoding.at_masked(all_BF, mask.index_fill(0, best_N, True).view_as(all_BF))


def over(encoding: Encoding, bound_F: Tensor) -> tuple[Places, Tensor]:
    """Those larger than their latent's bound."""
    count = _guessed_count(encoding, bound_F)
    if encoding.lists(count):
        most = encoding.shape.numel() // LISTED_OF[encoding.dtype]
        size = _group_size(encoding.shape[1], count / encoding.shape.numel())
        found = _listed_over(encoding, lambda _: bound_F, size, most)
        if found is not None:
            return encoding.at_listed(*found)
    all_BF = encoding.whole()
    return encoding.at_masked(all_BF, all_BF > bound_F)


def _guessed_count(encoding: Encoding, bound_F: Tensor) -> int:
    """How many of the batch exceed their bound, from a few of its tokens; waits for the device."""
    if encoding.device.type != "cpu":
        return encoding.shape.numel()
    some_RF = encoding.of_some()
    return int((some_RF > bound_F).sum()) * encoding.shape[0] // len(some_RF)


def _over_a_guess(encoding: Encoding, count: int) -> tuple[Tensor, Tensor] | None:
    """Places that have the `count` largest of the batch among them, and the numbers there; None
    where the guess was too high or far too low. The bound is guessed from a sample of the first
    part, such that the largest of groups alone exceed it often enough."""

    share = count / encoding.shape.numel()
    size = _group_size(encoding.shape[1], share)

    def guessed(part_RF: Tensor) -> Tensor:
        sample = _grouped(part_RF[::SAMPLED], size).amax(1).flatten()
        wanted = min(math.ceil(MARGIN * share * size * len(sample)), len(sample))
        bound = sample.topk(wanted, sorted=False).values.min()
        return bound.expand(encoding.shape[1])

    found = _listed_over(encoding, guessed, size, 2 * count)
    return found if found and len(found[0]) >= count else None


def _listed_over(
    encoding: Encoding, bound_of: Callable[[Tensor], Tensor], size: int, most: int
) -> tuple[Tensor, Tensor] | None:
    """Where in the flattened matrix numbers exceed their latent's bound, which the first part
    decides, and the numbers; None where they are more than `most`, evenly over the tokens."""
    tokens, width = encoding.shape
    flats, values, first = [], [], 0
    bound_F = None
    for part_RF in encoding.parts():
        bound_F = bound_of(part_RF) if bound_F is None else bound_F
        flat_N = _flat_over(part_RF, bound_F, size, most * len(part_RF) // tokens)
        if flat_N is None:
            return None
        flats.append(flat_N + first * width)
        values.append(part_RF.flatten()[flat_N])
        first += len(part_RF)
    return torch.cat(flats), torch.cat(values)


def _flat_over(part_RF: Tensor, bound_F: Tensor, size: int, most: int) -> Tensor | None:
    """Where in the flattened part its numbers exceed their bounds, those of a token side by side;
    None where they are more than `most`. Of most groups only the largest is looked at."""
    grouped_RSG, bound_SG = _grouped(part_RF, size), _grouped(bound_F[None], size)[0]
    groups = grouped_RSG.shape[2]
    tokens_M, groups_M = (grouped_RSG.amax(1) > bound_SG.amin(0)).nonzero(as_tuple=True)
    if len(tokens_M) > most:
        return None
    inside_MS = grouped_RSG[tokens_M, :, groups_M] > bound_SG.T[groups_M]
    places_N, members_N = inside_MS.nonzero(as_tuple=True)
    if len(places_N) > most:
        return None
    return (tokens_M[places_N] * size + members_N) * groups + groups_M[places_N]


def top_indices(values_RC: Tensor, k: int) -> Tensor:
    """Where in each row its k largest are; int64 [R, k], in no order.

    On a CPU the rows are cut into groups first: the k largest values lie in the k groups with the
    largest maxima, so that few are compared with many.
    """
    columns = values_RC.shape[1]
    size = _group_size(columns, k / columns) if values_RC.device.type == "cpu" else 1
    if size == 1:
        return values_RC.topk(k, dim=1, sorted=False).indices
    grouped_RSG = _grouped(values_RC, size)
    groups_Rk = grouped_RSG.amax(1).topk(k, dim=1, sorted=False).indices
    candidates_RSk = grouped_RSG.gather(2, groups_Rk[:, None].expand(-1, size, -1))
    best_Rk = candidates_RSk.flatten(1).topk(k, dim=1, sorted=False).indices
    members_Rk = best_Rk.div(k, rounding_mode="floor")
    return members_Rk * grouped_RSG.shape[2] + groups_Rk.gather(1, best_Rk % k)


def _grouped(values_RC: Tensor, size: int) -> Tensor:
    """[R, S, G]: a group's members are far apart, as their maximum is fastest."""
    return values_RC.unflatten(1, (size, -1))


def _group_size(columns: int, share: float) -> int:
    """The largest power of two up to GROUP that divides them, and leaves four times as many groups
    as that share of the columns, so that most groups can be passed over."""
    size = min(columns & -columns, GROUP)
    while size > 1 and 4 * share * size > 1:
        size //= 2
    return size
