"""The matching of two SAEs' directions, beside all permutations and beside networkx."""

import itertools

import networkx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saemake.evaluation import matching
from saemake.evaluation.directions import unit
from saemake.evaluation.matching import Agreement, Matching, agreement, greedy, optimal


def directions(count, dimensions, seed):
    generator = torch.Generator().manual_seed(seed)
    return unit(torch.randn(count, dimensions, generator=generator))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 10**6))
def test_the_optimal_matching_has_the_largest_sum_of_all_permutations(count, dimensions, seed):
    these, those = directions(count, dimensions, seed), directions(count, dimensions, seed + 1)
    cosines = (these.double() @ those.double().T).tolist()
    largest = max(
        sum(cosines[place][partner] for place, partner in enumerate(permutation))
        for permutation in itertools.permutations(range(count))
    )
    found = optimal(these, those)
    assert sorted(found.partner_F.tolist()) == list(range(count))
    assert found.cosine_F.double().sum().item() == pytest.approx(largest, abs=1e-5)
    for place, partner in enumerate(found.partner_F.tolist()):
        assert found.cosine_F[place].item() == pytest.approx(cosines[place][partner], abs=1e-6)


def test_the_optimal_matching_is_that_of_networkx():
    """A blossom algorithm on a graph, which has no step in common with scipy's."""
    these, those = directions(40, 6, 3), directions(40, 6, 4)
    graph = networkx.Graph()
    for place, row in enumerate((these.double() @ those.double().T).tolist()):
        for partner, cosine in enumerate(row):
            graph.add_edge(("these", place), ("those", partner), weight=cosine)
    pairs = [sorted(pair) for pair in networkx.max_weight_matching(graph, maxcardinality=True)]
    assert optimal(these, those).partner_F.tolist() == [
        partner for (_, _), (_, partner) in sorted(pairs)
    ]


@pytest.mark.parametrize("match", [optimal, greedy])
def test_shuffled_directions_are_found_again(match):
    those, order = directions(50, 8, 5), torch.randperm(50, generator=torch.Generator())
    found = match(those[order], those)
    assert found.partner_F.tolist() == order.tolist()
    assert found.cosine_F.tolist() == pytest.approx([1.0] * 50)
    assert found.shared().all()


def test_the_greedy_matching_takes_the_nearest_pair_again_and_again():
    these, those = directions(30, 4, 6), directions(30, 4, 7)
    cosines = these.double() @ those.double().T
    pairs = sorted(
        itertools.product(range(30), repeat=2), key=lambda pair: -cosines[pair[0], pair[1]].item()
    )
    partners: dict[int, int] = {}
    for place, partner in pairs:
        if place not in partners and partner not in partners.values():
            partners[place] = partner
    found = greedy(these, those)
    assert found.partner_F.tolist() == [partners[place] for place in range(30)]
    best = optimal(these, those)
    assert best.cosine_F.sum() > found.cosine_F.sum()


def test_the_greedy_matching_goes_over_blocks_and_ends_where_all_are_equal(monkeypatch):
    these, those = directions(30, 4, 6), directions(30, 4, 7)
    whole = greedy(these, those).partner_F
    monkeypatch.setattr(matching, "ROWS_AT_ONCE", 7)
    assert greedy(these, those).partner_F.equal(whole)
    equal = torch.zeros(20, 4)
    assert sorted(greedy(equal, equal).partner_F.tolist()) == list(range(20))


class Sae(nn.Module):
    """What a matching reads of a dictionary."""

    def __init__(self, decoder_rows, encoder_weight):
        super().__init__()
        self.decoder_rows, self.encoder_weight = decoder_rows, encoder_weight
        self.width = len(decoder_rows)


def at(*degrees):
    """Directions in a plane, of length 2."""
    radians = torch.tensor(degrees).deg2rad()
    return 2 * torch.stack([radians.cos(), radians.sin()], dim=1)


def test_a_latent_is_shared_by_both_directions():
    first = Sae(at(0.0, 90.0, 180.0), at(0.0, 90.0, 180.0))
    # 45 degrees are a cosine of 0.707, 46 of 0.695. Two encoder directions have changed places.
    second = Sae(at(45.0, 90.0, 226.0), at(90.0, 0.0, 180.0))
    found = agreement(first, second)
    assert found.method == "optimal"
    assert found.decoder.partner_F.tolist() == [0, 1, 2]
    assert found.encoder.partner_F.tolist() == [1, 0, 2]
    assert found.decoder.shared().tolist() == [True, True, False]
    assert found.encoder.shared().tolist() == [True, True, True]
    assert found.shared().tolist() == [True, True, False]
    assert found.same_partner().tolist() == [False, False, True]


def test_very_many_latents_are_matched_greedily(monkeypatch):
    monkeypatch.setattr(matching, "MOST_OPTIMAL", 2)
    first = Sae(at(0.0, 90.0, 180.0), at(0.0, 90.0, 180.0))
    found = agreement(first, first)
    assert found.method == "greedy"
    assert isinstance(found, Agreement)
    assert isinstance(found.decoder, Matching)
    assert found.shared().all()
    assert found.same_partner().all()
