"""The latents that a training step computes with: the largest of each token or of the batch, or
those over a bound.

Shapes: B activations in a batch, R of them in a part, F latents, S latents in each of G groups, N
places of a list.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from saemake.architectures.encoding import Encoding
from saemake.architectures.places import Listed, Places

# The largest group of latents that is looked at together for large ones.
GROUP = 16
# Of a part's tokens one in so many is looked at to guess a bound, for so much more than what is
# wanted.
EVERY, MARGIN = 8, 1.25
INTEGERS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}


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
        best_N = largest(values_N, count).sort().values
        return encoding.at_listed(flat_N[best_N], values_N[best_N])
    all_BF = encoding.whole()
    best_N = largest(all_BF.flatten(), count)
    if encoding.lists(count):
        flat_N = best_N.sort().values
        return encoding.at_listed(flat_N, all_BF.flatten()[flat_N])
    mask = torch.zeros(all_BF.numel(), dtype=torch.bool, device=all_BF.device)
    return encoding.at_masked(all_BF, mask.index_fill(0, best_N, True).view_as(all_BF))


def over(encoding: Encoding, bound_F: Tensor) -> tuple[Places, Tensor]:
    """Those larger than their latent's bound."""
    count = _guessed_count(encoding, bound_F)
    if encoding.lists(count):
        size = _group_size(encoding.shape[1], count / encoding.shape.numel())
        found = _listed_over(encoding, lambda _: bound_F, size, encoding.most_listed)
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
        sample = _grouped(part_RF[::EVERY], size).amax(1).flatten()
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

    On a CPU they are looked for among the numbers' bits as integers, which are compared faster
    (docs/benchmarks.md): these have the order of numbers that are positive, and are less where not.
    """
    if values_RC.device.type != "cpu":
        return values_RC.topk(k, dim=1, sorted=False).indices
    largest_Rk, where_Rk = _top_by_groups(values_RC.view(INTEGERS[values_RC.dtype]), k)
    # Of negative numbers the integers have the opposite order.
    return where_Rk if (largest_Rk >= 0).all() else _top_by_groups(values_RC, k)[1]


def _top_by_groups(values_RC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row [R, k], in no order, and where they are. The rows are cut into
    groups first: the k largest values lie in the k groups with the largest maxima, so that few are
    compared with many."""
    columns = values_RC.shape[1]
    size = _group_size(columns, k / columns) if k else 1
    if size == 1:
        found = values_RC.topk(k, dim=1, sorted=False)
        return found.values, found.indices
    grouped_RSG = _grouped(values_RC, size)
    groups_Rk = grouped_RSG.amax(1).topk(k, dim=1, sorted=False).indices
    candidates_RSk = grouped_RSG.gather(2, groups_Rk[:, None].expand(-1, size, -1))
    largest_Rk, best_Rk = candidates_RSk.flatten(1).topk(k, dim=1, sorted=False)
    members_Rk = best_Rk.div(k, rounding_mode="floor")
    return largest_Rk, members_Rk * grouped_RSG.shape[2] + groups_Rk.gather(1, best_Rk % k)


def largest(values_N: Tensor, count: int) -> Tensor:
    """Where the `count` largest are; int64 [count], in no order."""
    return top_indices(values_N[None], count)[0]


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
