"""Choosing the latents that a training step computes with: the largest of each token, the largest
of the batch, or all above a bound.

Shapes: B activations in a batch, R activations in a part, F latents, C columns, S columns in each
of G groups, N places of a list, M candidate groups or places, k kept values of a row.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from saemake.architectures.encoding import Encoding
from saemake.architectures.places import Listed, Places

# Largest number of columns in a group (see _grouped).
GROUP = 16
# A bound is guessed from one in EVERY tokens of a part, so that about MARGIN times the wanted
# number of values exceed it.
EVERY, MARGIN = 8, 1.25
# The integer type with the width of each float type.
INTEGERS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}


def in_all(latents_RK: Tensor, width: int) -> Tensor:
    """The places of each token's latents in the flattened latents [R, F] of all tokens."""
    starts_R = torch.arange(len(latents_RK), device=latents_RK.device).mul_(width)
    return (latents_RK + starts_R[:, None]).flatten()


def top_of_each(
    encoding: Encoding, k: int, measure: Callable[[Tensor], Tensor] = lambda values: values
) -> tuple[Places, Tensor]:
    """The places of the k largest latents of each token, and their values with gradients. `measure`
    says what counts as large, such as torch.abs."""
    tokens, width = encoding.shape
    if encoding.lists(tokens * k):
        kept = [
            (latents_Rk := top_indices(measure(part_RF), k), part_RF.gather(1, latents_Rk))
            for part_RF in encoding.parts()
        ]
        latents_Bk, values_Bk = (torch.cat(column) for column in zip(*kept, strict=True))
        starts_B = torch.arange(0, tokens * k, k, device=encoding.device)
        places = Listed(latents_Bk.flatten(), starts_B, width, encoding.dtype)
        return places, encoding.at(places, values_Bk.flatten().float())
    all_BF = encoding.whole()
    latents_Bk = top_indices(measure(all_BF), k)
    mask_BF = torch.zeros_like(all_BF, dtype=torch.bool).scatter(1, latents_Bk, True)
    return encoding.at_masked(all_BF, mask_BF)


def ranked_positive_of_each(encoding: Encoding, k: int) -> tuple[Places, Tensor, Tensor, Tensor]:
    """The k largest latents of each token after a ReLU: their places and values there, and by rank,
    the largest first: the latents (int64 [B, k]) and their values [B, k]. All values have
    gradients."""
    kept = []
    for part_RF in encoding.parts():
        latents_Rk = top_indices(part_RF, k)
        values_Rk, order_Rk = part_RF.gather(1, latents_Rk).sort(
            dim=1, descending=True, stable=True
        )
        kept.append((latents_Rk.gather(1, order_Rk), values_Rk))
    latents_Bk, values_Bk = (torch.cat(column) for column in zip(*kept, strict=True))
    tokens, width = encoding.shape
    if encoding.lists(tokens * k):
        starts_B = torch.arange(0, tokens * k, k, device=encoding.device)
        places: Places = Listed(latents_Bk.flatten(), starts_B, width, encoding.dtype)
        f_P = encoding.at(places, values_Bk.flatten().float()).relu()
        return places, f_P, latents_Bk, f_P.view(tokens, k)
    zeros_BF = values_Bk.new_zeros(tokens, width)
    mask_BF = zeros_BF.bool().scatter(1, latents_Bk, True)
    places, f_P = encoding.at_masked(zeros_BF.scatter(1, latents_Bk, values_Bk), mask_BF)
    f_P = f_P.relu()
    return places, f_P, latents_Bk, f_P.gather(1, latents_Bk).float()


def top_of_batch(encoding: Encoding, count: int) -> tuple[Places, Tensor]:
    """The places of the `count` largest latents of the batch, and their values with gradients."""
    if encoding.lists(count) and (candidates := _over_a_guess(encoding, count)):
        flat_N, values_N = candidates
        best_N = largest(values_N, count).sort().values
        return encoding.at_listed(flat_N[best_N], values_N[best_N])
    all_BF = encoding.whole()
    best_N = largest(all_BF.flatten(), count)
    if encoding.lists(count):
        flat_N = best_N.sort().values
        return encoding.at_listed(flat_N, all_BF.flatten()[flat_N])
    mask = torch.zeros(all_BF.numel(), dtype=torch.bool, device=all_BF.device)
    return encoding.at_masked(all_BF, mask.index_fill(0, best_N, True).view_as(all_BF))


def top_positive_of_each(
    encoding: Encoding, k: int, limits: Tensor | None = None
) -> tuple[Places, Tensor]:
    """The same as `top_of_each` after a ReLU. `limits`, for kernels only: see
    saemake.kernels.top_k.keep_top_of_rows_."""
    if encoding.by_kernels:
        from saemake.kernels.top_k import keep_top_of_rows_  # it needs Triton

        chosen = encoding.top_by_kernel(lambda all_BF: keep_top_of_rows_(all_BF, k, limits))
        return chosen, chosen.values_BF
    places, values_P = top_of_each(encoding, k)
    return places, values_P.relu()


def top_positive_of_batch(encoding: Encoding, count: int) -> tuple[Places, Tensor]:
    """The same as `top_of_batch` after a ReLU."""
    if encoding.by_kernels:
        from saemake.kernels.top_k import keep_top_of_all_  # it needs Triton

        chosen = encoding.top_by_kernel(lambda all_BF: keep_top_of_all_(all_BF, count))
        return chosen, chosen.values_BF
    places, values_P = top_of_batch(encoding, count)
    return places, values_P.relu()


def positive(encoding: Encoding, powers: Tensor | None = None) -> tuple[Places, Tensor]:
    """The places of the latents above 0, and their values with gradients: a ReLU. `powers`: see
    Encoding.positive_by_kernel."""
    if encoding.by_kernels:
        places = encoding.positive_by_kernel(powers)
        return places, places.values_BF
    bound_F = torch.zeros(encoding.shape[1], device=encoding.device)
    return over(encoding, bound_F)


def over(encoding: Encoding, bound_F: Tensor) -> tuple[Places, Tensor]:
    """The places whose value exceeds the bound of its latent, and the values with gradients."""
    count = _guessed_count(encoding, bound_F)
    if encoding.lists(count):
        size = _group_size(encoding.shape[1], count / encoding.shape.numel())
        listed = _listed_over(encoding, lambda _: bound_F, size, encoding.most_listed)
        if listed is not None:
            return encoding.at_listed(*listed)
    all_BF = encoding.whole()
    return encoding.at_masked(all_BF, all_BF > bound_F)


def _guessed_count(encoding: Encoding, bound_F: Tensor) -> int:
    """Estimate how many values of the batch exceed their bound, from a few tokens. On a GPU it
    returns the number of all values instead of waiting for the device."""
    if encoding.device.type != "cpu":
        return encoding.shape.numel()
    sample_RF = encoding.of_some()
    return int((sample_RF > bound_F).sum()) * encoding.shape[0] // len(sample_RF)


def _over_a_guess(encoding: Encoding, count: int) -> tuple[Tensor, Tensor] | None:
    """Places that include the `count` largest of the batch, and the values there; None if the bound
    that was guessed is too high or far too low. The bound is guessed from a sample of the first
    part, such that enough group maxima exceed it."""

    share = count / encoding.shape.numel()
    size = _group_size(encoding.shape[1], share)

    def guessed(part_RF: Tensor) -> Tensor:
        sample = _grouped(part_RF[::EVERY], size).amax(1).flatten()
        wanted = min(math.ceil(MARGIN * share * size * len(sample)), len(sample))
        bound = sample.topk(wanted, sorted=False).values.min()
        return bound.expand(encoding.shape[1])

    listed = _listed_over(encoding, guessed, size, 2 * count)
    return listed if listed and len(listed[0]) >= count else None


def _listed_over(
    encoding: Encoding, bound_of: Callable[[Tensor], Tensor], size: int, most: int
) -> tuple[Tensor, Tensor] | None:
    """Indices into the flattened matrix where a value exceeds the bound of its latent, and these
    values; None if a part has more than its share of `most`. `bound_of` turns the first part [R, F]
    into the bounds [F]."""
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
    """Indices into the flattened part where a value exceeds its bound, with those of a token
    adjacent; None if there are more than `most`. Most groups are dismissed by their maximum."""
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
    """Columns of the k largest values of each row, in no particular order; int64 [R, k].

    On a CPU it compares bit patterns as integers, which is faster (docs/benchmarks.md). Positive
    floats sort like their bit patterns; negative ones come out below them.
    """
    if values_RC.device.type != "cpu":
        return values_RC.topk(k, dim=1, sorted=False).indices
    largest_Rk, columns_Rk = _top_by_groups(values_RC.view(INTEGERS[values_RC.dtype]), k)
    # The bit patterns of negative floats have the opposite order: compare the floats instead.
    return columns_Rk if (largest_Rk >= 0).all() else _top_by_groups(values_RC, k)[1]


def _top_by_groups(values_RC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row, in no particular order, and their columns; [R, k] each.
    Rows are cut into groups: the k largest values lie in the k groups with the largest maxima. So
    only the maxima are compared with each other, and then the values of k groups."""
    columns = values_RC.shape[1]
    size = _group_size(columns, k / columns) if k else 1
    if size == 1:
        top = values_RC.topk(k, dim=1, sorted=False)
        return top.values, top.indices
    grouped_RSG = _grouped(values_RC, size)
    groups_Rk = grouped_RSG.amax(1).topk(k, dim=1, sorted=False).indices
    candidates_RSk = grouped_RSG.gather(2, groups_Rk[:, None].expand(-1, size, -1))
    largest_Rk, best_Rk = candidates_RSk.flatten(1).topk(k, dim=1, sorted=False)
    members_Rk = best_Rk.div(k, rounding_mode="floor")
    return largest_Rk, members_Rk * grouped_RSG.shape[2] + groups_Rk.gather(1, best_Rk % k)


def largest(values_N: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest values, in no particular order; int64 [count]."""
    return top_indices(values_N[None], count)[0]


def _grouped(values_RC: Tensor, size: int) -> Tensor:
    """The values as [R, S, G]. The members of a group are G columns apart, because the maximum over
    a strided dimension is fastest."""
    return values_RC.unflatten(1, (size, -1))


def _group_size(columns: int, share: float) -> int:
    """The number of columns in a group: the largest power of two up to GROUP that divides `columns`
    and leaves at least four times as many groups as values are wanted (`share` of the columns).
    Then most groups can be dismissed."""
    size = min(columns & -columns, GROUP)
    while size > 1 and 4 * share * size > 1:
        size //= 2
    return size
